package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// A trouble is one way in which a plugin does not behave.
type trouble struct {
	name string // of the golden text, behind which stand the protocols

	// The plugin: a script or other content of its file, one for each
	// protocol, or else the call in which noted misbehaves, and how.
	grpc, exec string
	call, what string
	mode       os.FileMode // of the file; 0: as a program has

	code    int
	verbose bool
	killed  bool     // teal is killed as soon as the trouble has begun
	left    []string // the versions on the host behind it; nil: blue alone
}

// both says that noted misbehaves by both protocols.
const both = "both"

// troubles are the faults of plugins, those that take long first. Blue, which
// is version 1, serves on in each of them.
var troubles = []trouble{
	// When a plugin is started. No host is connected to.
	{name: "says nothing", code: 4, grpc: "trap '' TERM; echo thinking >&2; sleep 60; true", exec: "trap '' TERM; echo thinking >&2; sleep 60; true"},
	{name: "prints rubbish", code: 4, grpc: "echo 'hello, world'; sleep 60", exec: "echo 'hello, world'; sleep 60"},
	{name: "prints a line without an end", code: 4, grpc: "yes | tr -d '\\n'", exec: "yes | tr -d '\\n'"},
	{name: "ends at once", code: 4, grpc: "echo starting >&2; echo 'cannot find my settings' >&2; exit 3", exec: "echo starting >&2; echo 'cannot find my settings' >&2; exit 3"},
	{name: "speaks another version", code: 4, grpc: "echo '1|99|unix|/nowhere|grpc|'; sleep 60", exec: `echo '{"result":{"protocol":99}}'`},
	{name: "is another program's plugin", code: 4, grpc: "unset TEAL_RUNTIME_PLUGIN; exec $SELF"},
	{name: "listens nowhere", code: 4, grpc: "echo '1|1|unix|/nowhere|grpc|'; sleep 60"},
	{name: "is not executable", code: 2, grpc: "true", exec: "true", mode: 0o600},
	{name: "is for another machine", code: 4, grpc: foreign, exec: foreign},
	{name: "lacks its interpreter", code: 4, grpc: "#!/nowhere/python\n", exec: "#!/nowhere/python\n"},
	{name: "floods its log before it starts", code: 4, grpc: flood, exec: flood},

	// In a call.
	{name: "hangs in probe", code: 4, call: "probe", what: "hang"},
	{name: "hangs in create", code: 4, call: "create", what: "hang", exec: both},
	{name: "hangs in exec", code: 4, call: "exec", what: "hang", exec: both},
	{name: "dies in probe", code: 4, call: "probe", what: "crash"},
	{name: "dies in create", code: 4, call: "create", what: "crash", exec: both},
	{name: "panics in create", code: 4, call: "create", what: "panic"},
	{name: "dies in exec", code: 4, call: "exec", what: "crash"},
	{name: "dies in local-commands", code: 4, call: "local-commands", what: "crash"},
	{name: "dies in list", code: 4, call: "list", what: "crash"},
	{name: "dies in create and in remove", code: 4, call: "create-and-remove", what: "crash", left: []string{"1", "2"}},
	{name: "tells a secret", code: 4, call: "create", what: "secret", verbose: true},
	{name: "floods its log in create", code: 0, call: "create", what: "flood", exec: both, left: []string{"2"}},
	{name: "fails in a way of its own", code: 4, call: "create", what: "kind"},
	{name: "fails without names", code: 4, call: "create", what: "no names"},
	{name: "speaks of another host", code: 4, call: "create", what: "other host"},
	{name: "keeps the host of another call", code: 4, call: "create", what: "kept host"},
	{name: "creates another container", code: 4, call: "create", what: "other name", exec: both},
	{name: "creates a container without labels", code: 4, call: "create", what: "other labels"},
	{name: "creates a container without an id", code: 4, call: "create", what: "no id"},
	{name: "lists others' containers", code: 4, call: "list", what: "other labels", exec: both, left: []string{"1", "2"}},
	{name: "cannot tell how to remove", code: 4, call: "local-commands", what: "nothing"},

	// When teal is killed.
	{name: "outlives teal", call: "create", what: "hang with a child", exec: both, killed: true, left: []string{"1", "2"}},
}

const (
	flood = `yes "$(printf '%01000d' 0)" | head -n 20000 >&2; echo 'or is it' >&2; exit 4`
	// foreign is the beginning of a program for s390.
	foreign = "\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"
)

// TestFaults deploys with plugins that do not behave: what the user sees is in
// testdata/faults.txtar, nothing of them is left, and the next deployment, with
// one that behaves, puts right what there is to put right.
func TestFaults(t *testing.T) {
	t.Parallel()
	if err := needs(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	blue, err := newDesk(t, nil)
	if err = errors.Join(err, blue.serve(), blue.plugin(sound(), "grpc"), blue.app(sound())); err != nil {
		t.Fatal(err)
	}
	if said, code, err := blue.deploy("1"); code != 0 || err != nil {
		t.Fatalf("blue: exit code %d, %v\n%s", code, err, said)
	}
	type outcome struct {
		name, said string
		errs       []error
	}
	outcomes, n := make(chan outcome), 0
	atOnce := make(chan struct{}, 12) // most wait, and few compute: whatever the number of processors
	for _, tr := range troubles {
		for _, protocol := range tr.protocols() {
			n++
			go func() {
				atOnce <- struct{}{}
				defer func() { <-atOnce }()
				o := outcome{name: tr.name + ", " + protocol}
				o.said, o.errs = suffer(t, blue, tr, protocol)
				outcomes <- o
			}()
		}
	}
	got := map[string]string{}
	for range n {
		o := <-outcomes
		got[o.name] = o.said
		for _, err := range o.errs {
			if err != nil {
				t.Errorf("%s: %v\n%s", o.name, err, o.said)
			}
		}
	}
	compareFaults(t, got)
}

// needs says why there can be no hosts here.
func needs() error {
	if os.Getuid() != 0 {
		return errors.New("a host with a /var/lib of its own needs root")
	}
	_, err := os.Stat(sshdProgram)
	return err
}

func sound() trouble { return trouble{call: "none"} }

func (tr trouble) protocols() (names []string) {
	if tr.grpc != "" || tr.call != "" {
		names = append(names, "grpc")
	}
	if tr.exec != "" {
		names = append(names, "exec")
	}
	return names
}

// suffer deploys version 2 with a plugin that does not behave, and version 3
// with one that does. It returns what the user saw.
func suffer(t *testing.T, blue *desk, tr trouble, protocol string) (said string, errs []error) {
	d, err := newDesk(t, blue)
	if err == nil && tr.call != "" {
		err = d.serve()
	}
	if err = errors.Join(err, d.plugin(tr, protocol), d.app(tr)); err != nil {
		return "", []error{err}
	}
	var code int
	switch {
	case tr.killed:
		said, err = d.killed("2")
	case tr.verbose:
		said, code, err = d.deploy("2", "--verbose")
	default:
		said, code, err = d.deploy("2")
	}
	errs = append(errs, err)
	if code != tr.code {
		errs = append(errs, fmt.Errorf("exit code %d, want %d", code, tr.code))
	}
	if strings.Contains(said, secret) {
		errs = append(errs, errors.New("the secret is shown"))
	}
	if tr.verbose && !strings.Contains(said, "the password is [redacted]") {
		errs = append(errs, errors.New("the plugin's log is not shown"))
	}
	if most := blue.peak + 160<<10; d.peak > most { // a flood is two hundred megabytes
		errs = append(errs, fmt.Errorf("%d KiB of memory, want at most %d", d.peak, most))
	}
	left := tr.left
	if left == nil {
		left = []string{"1"}
	}
	errs = append(errs, d.nothingLeft(), d.versions(left...))
	said = d.shown(said)
	if tr.call == "" || tr.call == "probe" { // the host was not touched
		return said, errs
	}
	again, err := d.mend()
	return said + again, append(errs, err, d.nothingLeft(), d.versions("3"))
}

// mend deploys version 3 with a plugin that behaves, and returns what that had
// to put right.
func (d *desk) mend() (said string, err error) {
	if err := errors.Join(d.plugin(sound(), "grpc"), d.app(sound())); err != nil {
		return "", err
	}
	err = eventually(15*time.Second, func() error {
		all, code, err := d.deploy("3")
		if code != 0 {
			err = errors.Join(err, fmt.Errorf("the next deployment: exit code %d\n%s", code, all))
		}
		for line := range strings.Lines(all) {
			if strings.Contains(line, "repair") {
				said += line
			}
		}
		return err
	})
	return d.shown(said), err
}

// compareFaults compares what the user saw with the golden texts.
func compareFaults(t *testing.T, got map[string]string) {
	t.Helper()
	const golden = "testdata/faults.txtar"
	if *update {
		a := &txtar.Archive{Comment: []byte("What the user sees of plugins that do not behave, and what the next deployment repairs: TestFaults.\n")}
		for _, tr := range troubles {
			for _, protocol := range tr.protocols() {
				name := tr.name + ", " + protocol
				a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(got[name])})
			}
		}
		if err := os.WriteFile(golden, txtar.Format(a), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := txtar.ParseFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range a.Files {
		want[f.Name] = string(f.Data)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
