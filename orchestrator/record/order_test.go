package record

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

func order() Teardown {
	commands := func(id string) plugins.LocalCommands {
		return plugins.LocalCommands{
			PID: []string{"engine", "pid", id}, Stop: []string{"engine", "stop", "it's"}, Remove: []string{"engine", "rm", id},
		}
	}
	return Teardown{
		App: "shop", Release: "r1", Slot: proxy.Blue,
		Containers:   []Condemned{{ID: "a", Port: 8080, Commands: commands("a")}, {ID: "b", Commands: commands("b")}},
		Successor:    []Condemned{{ID: "c", Commands: plugins.LocalCommands{PID: []string{"engine", "pid", "c"}}}},
		Delay:        10 * time.Second,
		Max:          time.Hour,
		RoutedScript: "test \"$1\" = x\n", RoutedArgs: []string{"a b"},
		Armed: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func TestOrderFile(t *testing.T) {
	t.Parallel()
	got, err := orderFile(order(), 7, 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	const want = `release='r1'
epoch=7
delay=1000
max=360000
orphaned=150
port_c0=1F90
condemned='c0 c1'
successor='s0'
routed() {
'sh' '-c' 'test "$1" = x
' 'teal' 'a b'
}
run() {
case $1 in
pid_c0) 'engine' 'pid' 'a' ;;
stop_c0) 'engine' 'stop' 'it'\''s' ;;
remove_c0) 'engine' 'rm' 'a' ;;
pid_c1) 'engine' 'pid' 'b' ;;
stop_c1) 'engine' 'stop' 'it'\''s' ;;
remove_c1) 'engine' 'rm' 'b' ;;
pid_s0) 'engine' 'pid' 'c' ;;
esac
}
`
	header, rest, _ := strings.Cut(string(got), "\n")
	if diff := cmp.Diff(want+compact([]string{baseScript, holdingScript, ordersScript, teardownScript}), rest); diff != "" {
		t.Error(diff)
	}
	o, err := parseObservation([]byte("pending " + strings.TrimPrefix(header, "#") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Pending{{Teardown: order(), Connections: -1}}, o.Pending); diff != "" {
		t.Error(diff)
	}
}

func TestOrderThatCannotBeCarriedOutIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*Teardown)
		text   string
	}{
		"no release":        {func(o *Teardown) { o.Release = "" }, "cannot be the name of a folder"},
		"a path":            {func(o *Teardown) { o.Release = "a/b" }, "cannot be the name of a folder"},
		"no container":      {func(o *Teardown) { o.Containers = nil }, "names no container"},
		"no stop":           {func(o *Teardown) { o.Containers[1].Commands.Stop = nil }, "container b lacks a command"},
		"no pid":            {func(o *Teardown) { o.Successor[0].Commands.PID = nil }, "container c lacks the command"},
		"max before delay":  {func(o *Teardown) { o.Max = time.Second }, "does not fit"},
		"negative delay":    {func(o *Teardown) { o.Delay = -1 }, "does not fit"},
		"NUL in a command":  {func(o *Teardown) { o.Containers[0].Commands.Stop[2] = "\x00" }, "NUL"},
		"NUL in the script": {func(o *Teardown) { o.RoutedArgs[0] = "\x00" }, "NUL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := order()
			tt.change(&o)
			_, err := orderFile(o, 1, 0)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q", err, tt.text)
			}
		})
	}
}
