package haproxy

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// scripted answers every command with the same output.
type scripted struct {
	plugins.Host
	out string
}

func (s scripted) Run(_ context.Context, cmd *plugins.Command) error {
	_, err := io.WriteString(cmd.Stdout, s.out)
	return err
}

func TestProcessesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	said := func(uid, installed string, processes ...string) string {
		out := "\n\x1euid\n" + uid + "\n\n\x1einstalled\n" + installed + "\n"
		for _, p := range processes {
			out += "\n\x1eprocess\n" + p
		}
		return out
	}
	const (
		master  = "10\n1\n0\n/usr/sbin/haproxy\n/\nhost\nhaproxy\n-W\n-f\n/a\n"
		jailed  = "11\n10\n99\n/usr/sbin/haproxy\n/\nother\nhaproxy\n-W\n-f\n/a\n"
		image   = "20\n19\n0\n/usr/sbin/haproxy\n/\nother\nhaproxy\n-W\n-f\n/a\n"
		within  = "21\n20\n0\n/usr/sbin/haproxy\n/\nother\nhaproxy\n-W\n-f\n/a\n"
		unknown = "10\n1\n0\n\n\nhost\nhaproxy\n-W\n-f\n/a\n"
	)
	for name, c := range map[string]struct {
		out  string
		kind plugins.Kind
		says string
	}{
		"usable":        {said("0", "/usr/sbin/haproxy", master, jailed), "", ""},
		"beside others": {said("0", "", image, within, master, jailed), "", ""},
		"contained":     {said("0", "", image, within), plugins.Unsupported, "in a container"},
		"not running":   {said("0", "/usr/sbin/haproxy"), plugins.Unavailable, "does not run"},
		"not installed": {said("0", ""), plugins.NotFound, "is not installed"},
		"another user":  {said("1000", "", unknown), plugins.Denied, "set become"},
	} {
		found, err := processes(t.Context(), scripted{host(), c.out})
		switch {
		case c.kind == "" && (err != nil || len(found) != 1 || !found[0].workers || found[0].pid != 10):
			t.Errorf("%s: %+v, %v", name, found, err)
		case c.kind != "" && (!errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// haproxy before 2.4 has no versions of a map.
func TestOldHaproxyChangesEntriesOneByOne(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1", "web2")
	commands, err := d.admin().changes(t.Context(), l, proxy.Route{"web1": 5, "web3": 100}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := "set map FILE web1 5;add map FILE web3 100;del map FILE web2"
	if got := strings.ReplaceAll(strings.Join(commands, ";"), mapFile(l), "FILE"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
