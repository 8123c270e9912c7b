package podman

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine"
)

// places prints where the login user's Podman is. A session without
// XDG_RUNTIME_DIR gets the one that a login has: without it, Podman would
// keep its state elsewhere and not know its own containers.
const places = `
p=$(command -v podman) && echo "program $p"
n=$(id -u)
echo "uid $n"
if [ "$n" = 0 ]; then
	s=/run/podman/podman.sock
else
	r=${XDG_RUNTIME_DIR:-/run/user/$n}
	[ -d "$r" ] && [ -w "$r" ] || r=
	echo "runtime $r"
	s=$r/podman/podman.sock
fi
[ -S "$s" ] && echo "socket $s"
exit 0`

// service starts the API at a socket in a folder of its own: $1 is Podman, $2
// where the folder is made, $3 XDG_RUNTIME_DIR or empty. It ends when standard
// input does. Should that be prevented by force, the service ends by itself a
// minute after its last connection.
const service = `
if [ -n "$3" ]; then export XDG_RUNTIME_DIR="$3"; else unset XDG_RUNTIME_DIR; fi
d=$(mktemp -d "$2/teal-podman.XXXXXX") || exit 1
trap 'rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM PIPE
"$1" system service --time=60 "unix://$d/s" </dev/null >"$d/log" 2>&1 &
p=$!
trap 'kill "$p" 2>/dev/null; wait "$p" 2>/dev/null; rm -rf "$d"' EXIT
n=0
until [ -S "$d/s" ]; do
	n=$((n + 1))
	if ! kill -0 "$p" 2>/dev/null || [ "$n" -gt 200 ]; then cat "$d/log" >&2; exit 1; fi
	sleep 0.05
done
echo "$d/s"
cat >/dev/null`

// locate implements engine.Engine's Locate.
func locate(ctx context.Context, h plugins.Host) ([]engine.Route, error) {
	out, err := plugins.Output(ctx, h, "sh", "-c", places)
	if err != nil {
		return nil, err
	}
	f := parse(out)
	if f["program"] == "" {
		return nil, notThere(h)
	}
	return routes(f), nil
}

func notThere(h plugins.Host) error {
	return &plugins.Error{
		Op: "reach podman", Host: h.String(), Kind: plugins.Unavailable,
		Err: errors.New("the program podman is not there: install the package podman"),
	}
}

// routes are those to the Podman that facts describe. A socket may be one that
// nobody serves any more.
func routes(f facts) []engine.Route {
	folder := f["runtime"]
	switch {
	case f["uid"] == "0":
		folder = "/run"
	case folder == "":
		folder = "/tmp"
	}
	serve := []string{"sh", "-c", service, "teal", f["program"], folder, f["runtime"]}
	var rs []engine.Route
	if f["socket"] != "" {
		rs = append(rs, engine.Route{Socket: f["socket"]}, engine.Route{Socket: f["socket"], Bridge: true, Program: program(f)})
	}
	return append(rs, engine.Route{Serve: serve}, engine.Route{Serve: serve, Bridge: true, Program: program(f)})
}

// program is how Podman is started so that it finds its own state.
func program(f facts) []string {
	if f["runtime"] == "" {
		return []string{f["program"]}
	}
	return []string{"env", "XDG_RUNTIME_DIR=" + f["runtime"], f["program"]}
}

// facts are what a script printed: a word and its value a line.
type facts map[string]string

func parse(out []byte) facts {
	f := make(facts)
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		f[key] = value
	}
	return f
}
