//go:build linux

package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/cmd/internal/cli"
)

func TestMain(m *testing.M) {
	if lab.Init(os.Args[1:]) {
		return
	}
	os.Exit(m.Run())
}

// run runs a command line and returns its code and both outputs.
func run(t *testing.T, args ...string) (code int, out, stderr string) {
	t.Helper()
	var o, e strings.Builder
	code = cli.Run(t.Context(), args, cli.Streams{Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestLabIsMadeUsedAndUnmade(t *testing.T) {
	if missing := lab.Missing(lab.Config{Services: true, Proxy: lab.HAProxy}); len(missing) > 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := filepath.Join(t.TempDir(), "a lab's folder")
	t.Cleanup(func() { run(t, "down", "-dir", dir) })
	steps := []struct {
		name  string
		args  []string
		code  int
		wants []string // in the output, or in what stands on standard error
	}{
		{
			"up",
			[]string{"up", "-dir", dir, "-hosts", "1", "-lb", "1", "-proxy", "haproxy", "-engine", ""},
			0,
			[]string{"2 hosts are up", "inventory.toml"},
		},
		{"up again", []string{"up", "-dir", dir, "-hosts", "1", "-engine", ""}, 1, []string{"not empty"}},
		{"status", []string{"status", "-dir", dir}, 0, []string{"h1", "lb1", "services", "on", "plugged in"}},
		{"env", []string{"env", "-dir", dir}, 0, []string{"export SSH_AUTH_SOCK='", `a lab'\''s folder/agent'`}},
		{"cut", []string{"cut", "-dir", dir, "h1"}, 0, nil},
		{"status of a cut cable", []string{"status", "-dir", dir}, 0, []string{"cut"}},
		{"heal", []string{"heal", "-dir", dir, "h1"}, 0, nil},
		{"reboot", []string{"reboot", "-dir", dir, "lb1"}, 0, nil},
		{"no such host", []string{"reboot", "-dir", dir, "h9"}, 2, []string{`no host is called "h9"`}},
		{"down", []string{"down", "-dir", dir}, 0, nil},
		{"down again", []string{"down", "-dir", dir}, 0, nil},
		{"status of nothing", []string{"status", "-dir", dir}, 1, []string{"open a lab"}},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			code, out, stderr := run(t, s.args...)
			if code != s.code {
				t.Fatalf("code %d, want %d: %s%s", code, s.code, out, stderr)
			}
			for _, want := range s.wants {
				if !strings.Contains(out+stderr, want) {
					t.Errorf("%q is missing in %q, %q", want, out, stderr)
				}
			}
		})
	}
}

func TestCommandLinesThatAreNone(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "Usage"},
		{"an unknown command", []string{"upp"}, `unknown command "upp"`},
		{"an unknown flag", []string{"up", "-host", "3"}, "not defined: -host"},
		{"a number that is none", []string{"up", "-hosts", "two"}, "invalid value"},
		{"too many arguments", []string{"down", "h1"}, "0 arguments"},
		{"too few", []string{"cut"}, "1 arguments"},
		{"load balancers that are none", []string{"demo", "-lb", "many"}, "invalid value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := run(t, tt.args...)
			if code != 2 || !strings.Contains(stderr, tt.want) {
				t.Errorf("code %d, %q; want 2 and %q", code, stderr, tt.want)
			}
		})
	}
	for _, help := range [][]string{{"help"}, {"--help"}, {"up", "-h"}} {
		if code, _, _ := run(t, help...); code != 0 {
			t.Errorf("%q: code %d, want 0", help, code)
		}
	}
}

func TestDemoWithoutTealSaysSo(t *testing.T) {
	if missing := lab.Missing(lab.Config{Engine: lab.Docker, Services: true}); len(missing) > 0 {
		t.Skip(missing)
	}
	code, _, stderr := run(t, "demo", "-teal", filepath.Join(t.TempDir(), "teal"))
	if code != 1 || !strings.Contains(stderr, "find the program to show") {
		t.Errorf("code %d, %q", code, stderr)
	}
}
