package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/teal-deploy/teal/plugins/loader"
)

var update = flag.Bool("update", false, "write what commands print into the scripts")

func TestMain(m *testing.M) {
	if _, ok := loader.BuiltinRequested(os.Args[1:]); ok { // as main does, whatever the program is called
		main()
	}
	if serveFault(os.Args[1:]) {
		return
	}
	testscript.Main(m, map[string]func(){"teal": main})
}

// The scripts read as documentation of the command line. They have a HOME of
// their own, in which ssh finds its configuration, and reach nothing but
// loopback.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup:              setUp,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":       exits,
			"took":        took,
			"fill":        fill,
			"mode":        mode,
			"result":      result,
			"listen":      listen,
			"connections": connections,
			"closed":      closed,
			"sshd":        sshd,
			"needs":       need,
		},
	})
}

// A fixture is what the commands of one script share.
type fixture struct {
	t         testscript.T
	took      time.Duration // by the last command of exits
	listeners map[string]*listener
}

type fixtureKey struct{}

func of(ts *testscript.TestScript) *fixture { return ts.Value(fixtureKey{}).(*fixture) }

// setUp makes the operator's home. OpenSSH finds homes in the password
// database and not in HOME, so the ssh of scripts is told.
func setUp(env *testscript.Env) error {
	home, bin := filepath.Join(env.WorkDir, "home"), filepath.Join(env.WorkDir, ".bin")
	config := filepath.Join(home, ".ssh", "config")
	const wrapper = "#!/bin/sh\nexec %s -F \"$HOME/.ssh/config\" \"$@\"\n"
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return missing(env.T(), "ssh")
	}
	err = errors.Join(os.MkdirAll(filepath.Dir(config), 0o700), os.Mkdir(bin, 0o700),
		os.WriteFile(filepath.Join(bin, "ssh"), fmt.Appendf(nil, wrapper, ssh), 0o700))
	if _, missing := os.Stat(config); missing != nil {
		err = errors.Join(err, os.WriteFile(config, fmt.Appendf(nil,
			"UserKnownHostsFile %[1]s/.ssh/known_hosts\nGlobalKnownHostsFile none\nIdentityFile %[1]s/.ssh/id_ed25519\n", home), 0o600))
	}
	env.Setenv("HOME", home)
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Setenv("GORACE", "atexit_sleep_ms=0") // a race detector waits a second
	env.Setenv("TEAL_BY", "operator@desk")
	env.Values[fixtureKey{}] = &fixture{t: env.T(), listeners: map[string]*listener{}}
	return err
}

// missing skips a script that cannot run here, and fails it where everything
// must run.
func missing(t testscript.T, program string) error {
	if os.Getenv("CI") == "true" {
		return fmt.Errorf("%s is not installed", program)
	}
	t.Skip(program + " is not installed")
	return nil
}

// need names programs, or files, without which a script cannot run:
//
//	needs jq /usr/bin/python3
func need(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: needs program...")
	}
	for _, name := range args {
		_, noProgram := exec.LookPath(name)
		_, noFile := os.Stat(name)
		if noProgram != nil && noFile != nil {
			ts.Check(missing(of(ts).t, name))
		}
	}
}

// exits runs a command and checks its exit code:
//
//	exits 2 teal deploy
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	start, code := time.Now(), 0
	err = ts.Exec(args[1], args[2:]...)
	of(ts).took = time.Since(start)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// took checks how long the last command of exits ran:
//
//	took 1s 5s
func took(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: took least most")
	}
	least, err := time.ParseDuration(args[0])
	ts.Check(err)
	most, err := time.ParseDuration(args[1])
	ts.Check(err)
	if d := of(ts).took; d < least || d > most {
		ts.Fatalf("took %s", d)
	}
}

// fill replaces $NAME in files by the environment's values:
//
//	fill inventory.toml
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: fill file...")
	}
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// mode checks who may read the files of a pattern, of which there must be one:
//
//	mode 0600 $HOME/*.jsonl
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode octal pattern")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	names, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("there is no %s", args[1])
	}
	for _, name := range names {
		info, err := os.Stat(name)
		ts.Check(err)
		if info.Mode().Perm() != os.FileMode(want) {
			ts.Fatalf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

// result checks that every line of a file, or of files of a pattern, is JSON,
// and that the last one is a result with this code and outcome:
//
//	result 5 unreachable stdout
func result(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: result code outcome file")
	}
	name := args[2]
	if name != "stdout" {
		names, err := filepath.Glob(ts.MkAbs(name))
		ts.Check(err)
		if len(names) != 1 {
			ts.Fatalf("%s: %d files", name, len(names))
		}
		name = names[0]
	}
	var last struct {
		Schema int
		Result *struct {
			Code    int
			Outcome string
		}
	}
	lines := bytes.Split(bytes.TrimSuffix([]byte(ts.ReadFile(name)), []byte("\n")), []byte("\n"))
	for i, line := range lines {
		last.Result = nil
		if err := json.Unmarshal(line, &last); err != nil || last.Schema != 1 {
			ts.Fatalf("line %d: schema %d, %v: %s", i+1, last.Schema, err, line)
		}
		if (last.Result != nil) != (i == len(lines)-1) {
			ts.Fatalf("line %d of %d: the result is the last line: %s", i+1, len(lines), line)
		}
	}
	if got := fmt.Sprint(last.Result.Code, " ", last.Result.Outcome); got != args[0]+" "+args[1] {
		ts.Fatalf("result %s, want %s %s", got, args[0], args[1])
	}
}

// A listener takes connections and never says a word. It hands out the other
// side's address of each.
type listener struct{ taken chan string }

// listen starts a listener on loopback and sets a variable to its port:
//
//	listen PORT
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen variable")
	}
	at, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	l := &listener{taken: make(chan string, 1000)}
	of(ts).listeners[args[0]] = l
	ts.Setenv(args[0], strconv.Itoa(at.Addr().(*net.TCPAddr).Port))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := at.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			l.taken <- conn.RemoteAddr().String()
		}
	}()
	ts.Defer(func() {
		_ = at.Close()
		<-ended
	})
}

// connections checks how many connections a listener was asked for since the
// last time:
//
//	connections PORT 0
func connections(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: connections variable number")
	}
	l := of(ts).listeners[args[0]]
	if l == nil {
		ts.Fatalf("nobody listens on %s", args[0])
	}
	// Connections are taken in the order in which they came: those before
	// this one are all that there were.
	last, err := net.Dial("tcp", "127.0.0.1:"+ts.Getenv(args[0]))
	ts.Check(err)
	defer last.Close()
	n := 0
	for <-l.taken != last.LocalAddr().String() {
		n++
	}
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("%d connections, want %s", n, args[1])
	}
}

// closed sets a variable to a port of loopback on which nobody listens, and
// keeps others from listening there:
//
//	closed PORT
func closed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: closed variable")
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	ts.Check(err)
	ts.Defer(func() { _ = syscall.Close(fd) })
	ts.Check(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := syscall.Getsockname(fd)
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(at.(*syscall.SockaddrInet4).Port))
}

// sshd starts the real thing for whoever runs the tests, with keys in the
// folder sshd: id, which may log in, locked, the same with the passphrase
// "open sesame", and other, which may not. It sets USER, and variables to its
// port and to the fingerprint of its key:
//
//	sshd PORT FINGERPRINT
func sshd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sshd variable variable")
	}
	if _, err := os.Stat(sshdProgram); err != nil {
		ts.Check(missing(of(ts).t, sshdProgram))
	}
	if os.Getuid() == 0 {
		ts.Check(os.MkdirAll("/run/sshd", 0o755)) // where it puts its unprivileged half
	}
	dir := ts.MkAbs("sshd")
	ts.Check(os.Mkdir(dir, 0o700))
	for _, name := range []string{"host", "id", "other"} {
		ts.Check(keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(dir, name)))
	}
	id, err := os.ReadFile(filepath.Join(dir, "id"))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "locked"), id, 0o600))
	ts.Check(keygen("-q", "-p", "-P", "", "-N", "open sesame", "-f", filepath.Join(dir, "locked")))
	port, err := freePort()
	ts.Check(err)
	config := filepath.Join(dir, "config")
	ts.Check(os.WriteFile(config, fmt.Appendf(nil, strings.Join([]string{
		"Port %d", "ListenAddress 127.0.0.1", "HostKey %[2]s/host", "AuthorizedKeysFile %[2]s/id.pub",
		"PidFile none", "StrictModes no", "UsePAM no", "PermitRootLogin prohibit-password",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "SetEnv HOME=%[2]s", "",
	}, "\n"), port, dir), 0o600))
	start(ts, fmt.Sprintf("127.0.0.1:%d", port), sshdProgram, "-D", "-e", "-f", config)
	out, err := exec.Command("ssh-keygen", "-l", "-f", filepath.Join(dir, "host.pub")).Output()
	ts.Check(err)
	me, err := user.Current()
	ts.Check(err)
	ts.Setenv("USER", me.Username)
	ts.Setenv(args[0], strconv.Itoa(port))
	ts.Setenv(args[1], strings.Fields(string(out))[1])
}

const sshdProgram = "/usr/sbin/sshd"

func keygen(args ...string) error {
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ssh-keygen: %w: %s", err, out)
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// start starts a program that listens on address, and ends it with the script.
func start(ts *testscript.TestScript, address string, args ...string) {
	var said bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &said
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := listens(address); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ts.Fatalf("%s: %v: %s", args[0], err, said.String())
	}
}

// listens returns when somebody listens on address.
func listens(address string) error {
	var err error
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		var conn net.Conn
		if conn, err = net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
	}
	return err
}
