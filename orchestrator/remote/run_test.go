package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

// onEach runs a test against a real sshd and against hosts with other login
// shells.
func onEach(t *testing.T, test func(t *testing.T, c *remote.Conn)) {
	t.Run("sshd", func(t *testing.T) {
		t.Parallel()
		test(t, dial(t, &remote.Dialer{Config: "none"}, startSSHD(t).Host))
	})
	for _, shell := range [][]string{
		{"bash"}, {"dash"}, {"busybox", "sh"}, {"fish"}, {"tcsh"}, {"csh"}, {"zsh"}, {"mksh"},
	} {
		path, err := exec.LookPath(shell[0])
		if err != nil {
			continue // only what is installed
		}
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			h := remotetest.Start(t, remotetest.Options{Shell: append([]string{path}, shell[1:]...)})
			test(t, dial(t, &remote.Dialer{Config: "none"}, h.Inventory("web1")))
		})
	}
}

func TestRunReportsOutputsAndExitCode(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 20000)
	tests := map[string]struct {
		cmd            plugins.Command
		stdout, stderr string
		code           int
		tail           string // of Stderr in the error; "": all of it
	}{
		"no output":              {cmd: plugins.Command{Args: []string{"true"}}},
		"exit code":              {cmd: plugins.Command{Args: []string{"sh", "-c", "exit 255"}}, code: 255},
		"both outputs apart":     {cmd: plugins.Command{Args: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}}, stdout: "out\n", stderr: "err\n", code: 3},
		"end by a signal":        {cmd: plugins.Command{Args: []string{"sh", "-c", "kill -9 $$"}}, code: 137},
		"no standard input":      {cmd: plugins.Command{Args: []string{"cat"}}},
		"empty standard input":   {cmd: plugins.Command{Args: []string{"cat"}, Stdin: strings.NewReader("")}},
		"standard input":         {cmd: plugins.Command{Args: []string{"cat"}, Stdin: strings.NewReader("in\x00\xff\n0\n12\n")}, stdout: "in\x00\xff\n0\n12\n"},
		"much standard input":    {cmd: plugins.Command{Args: []string{"cat"}, Stdin: strings.NewReader(long)}, stdout: long},
		"input that is not read": {cmd: plugins.Command{Args: []string{"sh", "-c", "exit 4"}, Stdin: strings.NewReader(long)}, code: 4},
		"input read in part":     {cmd: plugins.Command{Args: []string{"sh", "-c", "head -c 5; exec <&-; sleep 0.2; exit 5"}, Stdin: strings.NewReader(long)}, stdout: "01234", code: 5},
		"much output":            {cmd: plugins.Command{Args: []string{"sh", "-c", "cat; cat >&2 </dev/null"}, Stdin: strings.NewReader(long)}, stdout: long},
		"much standard error":    {cmd: plugins.Command{Args: []string{"sh", "-c", "cat >&2; exit 1"}, Stdin: strings.NewReader(long)}, stderr: long, code: 1, tail: long[len(long)-64<<10:]},
		"folders of programs":    {cmd: plugins.Command{Args: []string{"sh", "-c", `case $PATH in *:/usr/local/sbin:/usr/sbin:/sbin) echo ok;; esac`}}, stdout: "ok\n"},
		"locale":                 {cmd: plugins.Command{Args: []string{"sh", "-c", `echo $LC_ALL`}}, stdout: "C\n"},
		"environment":            {cmd: plugins.Command{Args: []string{"sh", "-c", `printf %s "$A-$B"`}, Env: map[string]string{"A": "it's\n\\n $HOME %s\n", "B": "b"}}, stdout: "it's\n\\n $HOME %s\n-b"},
		"environment and input":  {cmd: plugins.Command{Args: []string{"sh", "-c", `printf %s "$A"; cat`}, Env: map[string]string{"A": "a"}, Stdin: strings.NewReader("in")}, stdout: "ain"},
		"long argument":          {cmd: plugins.Command{Args: []string{"printf", "%s", long[:100000]}}, stdout: long[:100000]},
		"long argument, input":   {cmd: plugins.Command{Args: []string{"sh", "-c", `printf %s "$1"; cat`, "teal", long[:100000]}, Stdin: strings.NewReader("in")}, stdout: long[:100000] + "in"},
		"long, input, variable":  {cmd: plugins.Command{Args: []string{"sh", "-c", `printf %s "$A$1"; cat`, "teal", long[:100000]}, Env: map[string]string{"A": "a"}, Stdin: strings.NewReader("in")}, stdout: "a" + long[:100000] + "in"},
		"argument with marks":    {cmd: plugins.Command{Args: []string{"printf", "%s", "<teal:run>\n!!'\"\\ \t"}}, stdout: "<teal:run>\n!!'\"\\ \t"},
	}
	onEach(t, func(t *testing.T, c *remote.Conn) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				cmd := tt.cmd
				if r, ok := cmd.Stdin.(*strings.Reader); ok {
					copied := *r
					cmd.Stdin = &copied
				}
				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := c.Run(t.Context(), &cmd)
				var want error
				if tt.code != 0 {
					tail := tt.tail
					if tail == "" {
						tail = tt.stderr
					}
					want = &plugins.ExitError{Host: "web1", Args: cmd.Args, Code: tt.code, Stderr: []byte(tail)}
				}
				if diff := cmp.Diff(want, err, equateEmptyBytes()); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tt.stdout, stdout.String()); diff != "" {
					t.Errorf("stdout: %.300s", diff)
				}
				if diff := cmp.Diff(tt.stderr, stderr.String()); diff != "" {
					t.Errorf("stderr: %.300s", diff)
				}
			})
		}
	})
}

func equateEmptyBytes() cmp.Option {
	return cmp.FilterValues(func(a, b []byte) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())
}

func TestRunSaysWhichProgramIsMissing(t *testing.T) {
	onEach(t, func(t *testing.T, c *remote.Conn) {
		for _, program := range []string{"no-such-program", "exit"} { // a builtin is no program
			err := c.Run(t.Context(), &plugins.Command{Args: []string{program}})
			var exit *plugins.ExitError
			if !errors.As(err, &exit) || exit.Code != 127 || !strings.Contains(err.Error(), program+": not found") {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestRunRefusesWhatNoShellCanPassOn(t *testing.T) {
	c := dial(t, testDialer(t), remotetest.Start(t, remotetest.Options{}).Inventory("web1"))
	for name, cmd := range map[string]plugins.Command{
		"no program":     {},
		"empty program":  {Args: []string{""}},
		"zero byte":      {Args: []string{"echo", "a\x00b"}},
		"variable name":  {Args: []string{"true"}, Env: map[string]string{"A B": "c"}},
		"variable value": {Args: []string{"true"}, Env: map[string]string{"A": "\x00"}},
	} {
		if err := c.Run(t.Context(), &cmd); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRunPassesOutputsToOneWriterInWholeWrites(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	var both bytes.Buffer // the race detector sees writes at the same time
	err := c.Run(t.Context(), &plugins.Command{
		Args:   []string{"sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo out; echo err >&2; done"},
		Stdout: &both, Stderr: &both,
	})
	if err != nil || both.Len() != 9*8 {
		t.Errorf("%v: %q", err, both.String())
	}
}

func TestRunStreamsInBothDirections(t *testing.T) {
	onEach(t, func(t *testing.T, c *remote.Conn) {
		in, toCommand := io.Pipe()
		fromCommand, out := io.Pipe()
		errs := start(t.Context(), c, &plugins.Command{Args: []string{"cat"}, Stdin: in, Stdout: out})
		for i := range 20 {
			line := fmt.Sprintf("question %d\n", i)
			_, _ = io.WriteString(toCommand, line)
			got := make([]byte, len(line))
			if _, err := io.ReadFull(fromCommand, got); err != nil || string(got) != line {
				t.Fatalf("%q %v", got, err)
			}
		}
		_ = toCommand.Close()
		if err := <-errs; err != nil {
			t.Error(err)
		}
	})
}

func TestRunCarriesMuchInputInPiecesOfAllSizes(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	data := make([]byte, 8<<20)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(source.Uint32())
	}
	in, w := io.Pipe()
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+source.IntN(5000))
			_, _ = w.Write(rest[:n])
			rest = rest[n:]
		}
		_ = w.Close()
	}()
	var out bytes.Buffer
	began := time.Now()
	if err := c.Run(t.Context(), &plugins.Command{Args: []string{"cat"}, Stdin: in, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%d of %d bytes came back, or others", out.Len(), len(data))
	}
	t.Logf("8 MiB there and back in %s", time.Since(began))
}

func TestRunReturnsWhenTheCommandEndsThoughInputStaysOpen(t *testing.T) {
	onEach(t, func(t *testing.T, c *remote.Conn) {
		in, w := io.Pipe()
		defer func() { _ = w.Close() }()
		began := time.Now()
		err := c.Run(t.Context(), &plugins.Command{Args: []string{"sh", "-c", "exit 7"}, Stdin: in})
		var exit *plugins.ExitError
		if !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %s", d)
		}
	})
}

func TestRunReturnsTheErrorOfItsReaderAndEndsTheCommand(t *testing.T) {
	onEach(t, func(t *testing.T, c *remote.Conn) {
		dir := t.TempDir()
		broken := errors.New("broken reader")
		err := c.Run(t.Context(), &plugins.Command{
			Args:  []string{"sh", "-c", `cat >"$1/part" && mv "$1/part" "$1/whole"`, "teal", dir},
			Stdin: io.MultiReader(strings.NewReader("half of it"), iotestErr{broken}),
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "whole")); err == nil {
			t.Error("the command took half of its input for the whole")
		}
	})
}

type iotestErr struct{ err error }

func (r iotestErr) Read([]byte) (int, error) { return 0, r.err }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRunReturnsTheErrorOfItsWriter(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	full := errors.New("disk full")
	began := time.Now()
	err := c.Run(t.Context(), &plugins.Command{
		Args:   []string{"sh", "-c", "echo text; sleep 60"},
		Stdout: writerFunc(func([]byte) (int, error) { return 0, full }),
	})
	if !errors.Is(err, full) || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
}

// family is a command whose children do not want to end: it writes the process
// ids of itself and of two more into $1, one deaf to TERM.
const family = `echo $$ >>"$1"
sleep 300 & echo $! >>"$1"
(trap "" TERM; echo deaf; while :; do sleep 300; done) & echo $! >>"$1"
wait`

// pids waits for the three processes of family.
func pids(t *testing.T, file string) []int {
	t.Helper()
	var ids []int
	within(t, 5*time.Second, "all running", func() bool {
		text, _ := os.ReadFile(file)
		ids = nil
		for line := range strings.FieldsSeq(string(text)) {
			id, _ := strconv.Atoi(line)
			ids = append(ids, id)
		}
		return len(ids) == 3
	})
	return ids
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(after, "Z")
}

// gone expects that the processes end soon.
func gone(t *testing.T, ids []int) {
	t.Helper()
	for _, id := range ids {
		within(t, 2500*time.Millisecond, fmt.Sprintf("process %d gone", id), func() bool { return !alive(id) })
	}
}

func TestNoProcessSurvivesItsConnectionOrContext(t *testing.T) {
	stdin := map[string]func() io.Reader{
		"without input": func() io.Reader { return nil },
		"with input": func() io.Reader {
			r, w := io.Pipe()
			t.Cleanup(func() { _ = w.Close() })
			go func() { _, _ = io.WriteString(w, "some of it") }()
			return r
		},
		"after its input": func() io.Reader { return strings.NewReader("all of it") },
	}
	onEach(t, func(t *testing.T, c *remote.Conn) {
		for name, in := range stdin {
			t.Run("cancelled "+name, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "pids")
				ctx, cancel := context.WithCancelCause(t.Context())
				errs := start(ctx, c, &plugins.Command{Args: []string{"sh", "-c", family, "teal", file}, Stdin: in()})
				ids := pids(t, file)
				stop := errors.New("no longer wanted")
				cancel(stop)
				if err := <-errs; !errors.Is(err, stop) {
					t.Errorf("got %v", err)
				}
				gone(t, ids)
			})
		}
	})
	for name, in := range stdin {
		t.Run("cut "+name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pids")
			cable, h := lay(t, startSSHD(t).Host)
			c := dial(t, &remote.Dialer{Config: "none"}, h)
			errs := start(t.Context(), c, &plugins.Command{Args: []string{"sh", "-c", family, "teal", file}, Stdin: in()})
			ids := pids(t, file)
			cable.cut()
			if err := <-errs; !errors.Is(err, plugins.Lost) {
				t.Errorf("got %v", err)
			}
			gone(t, ids)
		})
	}
}

func TestCancelledCommandMayEndInGoodOrder(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	ready := make(chan struct{})
	var once sync.Once
	errs := start(ctx, c, &plugins.Command{
		Args: []string{"sh", "-c", `trap 'sleep 0.3; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done`},
		Stdout: writerFunc(func(p []byte) (int, error) {
			once.Do(func() { close(ready) })
			return out.Write(p)
		}),
	})
	<-ready
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := out.String(); got != "ready\nbye\n" {
		t.Errorf("output %q", got)
	}
}

func TestInputCutOffIsNeverTakenForAll(t *testing.T) {
	dir := t.TempDir()
	cable, h := lay(t, startSSHD(t).Host)
	c := dial(t, testDialer(t), h)
	in, w := io.Pipe()
	defer func() { _ = w.Close() }()
	errs := start(t.Context(), c, &plugins.Command{
		Args:  []string{"sh", "-c", `cat >"$1/part"; mv "$1/part" "$1/whole"`, "teal", dir},
		Stdin: in,
	})
	_, _ = io.WriteString(w, "half of it")
	within(t, 5*time.Second, "half arrived", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "part"))
		return string(text) == "half of it"
	})
	cable.cut()
	if err := <-errs; !errors.Is(err, plugins.Lost) {
		t.Errorf("got %v", err)
	}
	time.Sleep(1500 * time.Millisecond) // TERM, then KILL
	if _, err := os.Stat(filepath.Join(dir, "whole")); err == nil {
		t.Error("the command took half of its input for the whole")
	}
}

func TestDetachedCommandLivesOn(t *testing.T) {
	onEach(t, func(t *testing.T, c *remote.Conn) {
		file := filepath.Join(t.TempDir(), "pid")
		began := time.Now()
		err := c.Run(t.Context(), &plugins.Command{Args: []string{
			"sh", "-c", `setsid sh -c 'echo $$ >"$1"; exec sleep 20' teal "$1" </dev/null >/dev/null 2>&1 &`, "teal", file,
		}})
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("Run took %s", d)
		}
		var pid int
		within(t, 2*time.Second, "started", func() bool {
			text, _ := os.ReadFile(file)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
			return pid != 0
		})
		time.Sleep(100 * time.Millisecond)
		if !alive(pid) {
			t.Error("it is gone")
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	})
}

func TestRunDoesNotWaitForWhoHoldsTheOutputsOpen(t *testing.T) {
	onEach(t, func(t *testing.T, c *remote.Conn) {
		var out bytes.Buffer
		began := time.Now()
		err := c.Run(t.Context(), &plugins.Command{Args: []string{"sh", "-c", "echo started; setsid sleep 20 &"}, Stdout: &out})
		if err != nil || out.String() != "started\n" {
			t.Errorf("%v, %q", err, out.String())
		}
		if d := time.Since(began); d > 4*time.Second {
			t.Errorf("it took %s", d)
		}
	})
}

func TestSecretsAreOnNoCommandLine(t *testing.T) {
	const secret = "hunter2-and-more"
	onEach(t, func(t *testing.T, c *remote.Conn) {
		for name, stdin := range map[string]io.Reader{"without input": nil, "with input": strings.NewReader("in")} {
			ready, done := filepath.Join(t.TempDir(), "ready"), filepath.Join(t.TempDir(), "done")
			errs := start(t.Context(), c, &plugins.Command{
				Args:  []string{"sh", "-c", `echo $$ >"$1"; until [ -e "$2" ]; do sleep 0.02; done; printf %s "$TOKEN" >&2; exit 1`, "teal", ready, done},
				Env:   map[string]string{"TOKEN": secret},
				Stdin: stdin,
			})
			var pid int
			within(t, 5*time.Second, "started", func() bool {
				text, _ := os.ReadFile(ready)
				pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
				return pid != 0
			})
			lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil || len(lines) == 0 {
				t.Fatal("no processes are to be seen")
			}
			own := strconv.Itoa(pid)
			for _, file := range lines {
				text, _ := os.ReadFile(file)
				if bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte(`hunter2\055and`)) {
					t.Errorf("%s: %s holds %q", name, file, text)
				}
			}
			// Only the command itself has it in its environment.
			if parent := parentOf(t, own); bytes.Contains(environ(parent), []byte(secret)) {
				t.Errorf("%s: the shell around it has it in its environment", name)
			}
			if !bytes.Contains(environ(own), []byte(secret)) {
				t.Errorf("%s: the command does not have it", name)
			}
			write(t, done, "")
			var exit *plugins.ExitError
			if err := <-errs; !errors.As(err, &exit) || string(exit.Stderr) != secret {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func environ(pid string) []byte {
	text, _ := os.ReadFile("/proc/" + pid + "/environ")
	return text
}

func parentOf(t *testing.T, pid string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.Fields(after)[1]
}

func TestChatterOfTheLoginShellIsLeftOut(t *testing.T) {
	rc := filepath.Join(t.TempDir(), "rc")
	write(t, rc, "echo welcome to this host\n")
	h := remotetest.Start(t, remotetest.Options{
		Shell: []string{"/bin/sh", "-c", `. "$0"; eval "$2"`, rc},
	})
	c := dial(t, testDialer(t), h.Inventory("web1"))
	if got := output(t, c, "echo", "result"); got != "result\n" {
		t.Errorf("got %q", got)
	}
}

func TestLoginShellThatRunsNothingIsNamed(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{Shell: []string{"/bin/sh", "-c", "echo This account is not available.; exit 1"}})
	err := dial(t, testDialer(t), h.Inventory("web1")).Run(t.Context(), &plugins.Command{Args: []string{"true"}})
	if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "did not run the command: This account is not available.") {
		t.Errorf("got %v", err)
	}
}

func TestManyCommandsShareFewSessions(t *testing.T) {
	for _, most := range []int{1, 3, 10} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			h := startSSHD(t, fmt.Sprintf("MaxSessions %d", most))
			c := dial(t, &remote.Dialer{Config: "none"}, h.Host)
			var all sync.WaitGroup
			for i := range 30 {
				all.Go(func() {
					out, err := plugins.Output(t.Context(), c, "echo", strconv.Itoa(i))
					if err != nil || string(out) != fmt.Sprintln(i) {
						t.Errorf("%q, %v", out, err)
					}
				})
			}
			all.Wait()
		})
	}
	t.Run("none", func(t *testing.T) {
		c := dial(t, testDialer(t), startSSHD(t, "MaxSessions 0").Host)
		err := c.Run(t.Context(), &plugins.Command{Args: []string{"true"}})
		if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "MaxSessions") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRunBeforeAndAfterClose(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	if got := output(t, c, "echo", "here"); got != "here\n" {
		t.Errorf("got %q", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	<-c.Done()
	if err := c.Run(t.Context(), &plugins.Command{Args: []string{"true"}}); !errors.Is(err, plugins.Lost) {
		t.Errorf("got %v", err)
	}
}
