// Package execruntime makes a runtime of any executable, for authors who have
// no gRPC: a shell script will do. The program is started once for each call
// and talks in lines, each a JSON object.
//
// The first line on its standard input is the request, version and call first:
//
//	{"version":1, "call":"stop", "host":"web1", "settings":{}, "id":"c1", "grace":10}
//
// Then it is the program's turn, on its standard output. It asks for commands
// on the host, as often as it wants, and reads an answer for each:
//
//	{"run":["docker","ps"], "env":{"A":"b"}, "stdin":"text", "become":true}
//	    {"code":0, "stdout":"…", "stderr":"…"}
//	{"stream":["docker","exec","-i","c1","sh"], "env":{"A":"b"}}
//	    {"code":0}
//
// Only the first member is required, and code comes first. A stream has the
// standard input, output and error of the call itself, untouched: what Exec
// runs, what Logs prints, the progress of Pull. A command that could not be run
// at all ends the call; the program need not know of that. The last line is one
// of
//
//	{"result":{…}}
//	{"error":{"kind":"not found","message":"there is no container c1"}}
//
// Calls, what comes with the request, and the result:
//
//	describe        -                     {"protocol":1, "plugin_version":"1.0", "calls":["restart","restart-policy","logs","local-commands"], "settings":true}
//	probe           -                     {"name":"mine", "version":"1", "warnings":["…"]}
//	pull            image policy auth     {"reference":"…", "digest":"sha256:…"}
//	create          spec                  a container
//	exec            id command            {"code":0}
//	list            labels                {"containers":[…]}, oldest first
//	stop, restart   id grace              {}
//	remove          id                    {}
//	restart-policy  id restart            {}
//	logs            id lines              {}
//	local-commands  id grace              {"pid":[…], "stop":[…], "remove":[…], "port":0}
//
// describe comes first, and says which version of this protocol the program
// speaks (left out: 1), which version it is itself, for people, which of the
// optional calls there are and whether it looks at settings; then it may say
// with an error what is wrong with one:
// {"error":{"setting":["opt","level"],"message":"…"}}. A container is
// {"id":"…", "name":"…", "image":"…", "labels":{}, "status":"running",
// "health":"", "pid":1, "exit_code":0, "created":"2026-01-02T15:04:05Z"};
// a spec has name, image, command, env, labels, mounts (source, target,
// read_only), port, publish, memory, cpus, stop_grace and restart; a command
// has args and env. Times are in seconds. Kinds are those of package plugins.
//
// Why the program asks and does not get a shell on the host, nor hands over a
// plan: a plan cannot decide by what it has read, and a helper program to reach
// the host would be one more thing to install and to trust. Two streams that
// every program has are enough, and a transcript of them is a test.
//
// Standard error is the log. A program that ends without a last line has
// failed, and what it wrote there is the reason. A call that is cancelled ends
// the program and what it left running: first by SIGTERM, then by force.
package execruntime
