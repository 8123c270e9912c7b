package record

import (
	"bytes"
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// The scripts are constants that run as sh -c SCRIPT teal ARGS…. The first
// three are functions for the others, which say in whose company they run.
var (
	//go:embed scripts/base.sh
	baseScript string
	//go:embed scripts/holding.sh
	holdingScript string
	//go:embed scripts/orders.sh
	ordersScript string
	//go:embed scripts/observe.sh
	observeScript string
	//go:embed scripts/setup.sh
	setupScript string
	//go:embed scripts/lock.sh
	lockScript string
	//go:embed scripts/write.sh
	writeScript string
	//go:embed scripts/serves.sh
	servesScript string
	//go:embed scripts/append.sh
	appendScript string
	//go:embed scripts/history.sh
	historyScript string
	//go:embed scripts/audit.sh
	auditScript string
	//go:embed scripts/arm.sh
	armScript string
	//go:embed scripts/start.sh
	startScript string
	//go:embed scripts/let.sh
	letScript string
	//go:embed scripts/cancel.sh
	cancelScript string
	//go:embed scripts/teardown.sh
	teardownScript string
)

// What a Store does when its fields are zero.
const (
	DefaultRoot     = "/var/lib/teal"
	DefaultSilence  = 15 * time.Second
	DefaultOrphaned = 60 * time.Second
)

// Errors that a caller may act on; match them with errors.Is.
var (
	// ErrFenced: somebody else has taken the lock since. Nothing was
	// written. Stop; the host belongs to the other run.
	ErrFenced = errors.New("another run has taken the lock")

	// ErrLost: the lock's connection went away or fell silent. It is unknown
	// what became of what was under way. Observe before acting.
	ErrLost = errors.New("the lock is lost")

	// ErrReleased: the lock was released before the call. A caller's mistake.
	ErrReleased = errors.New("the lock was released")

	// ErrTooLate: the containers are being stopped. Blue is gone for good;
	// going back means to deploy it again.
	ErrTooLate = errors.New("the containers are being stopped already")

	// ErrNoTeardown: the host has no such order. It was never armed, was
	// cancelled, or has been carried out: look which containers run.
	ErrNoTeardown = errors.New("there is no such teardown")
)

// A Store is the folder in which every host keeps what it remembers. The zero
// value is what teal uses; tests set the fields.
type Store struct {
	Root string // absolute path on the host; "": DefaultRoot
	// Silence is after which time without a sign of life a host ends the
	// connection that holds a lock. Whole seconds; 0: DefaultSilence.
	Silence time.Duration
	// Orphaned is how long a teardown waits for a switch when its run is gone.
	// 0: DefaultOrphaned.
	Orphaned time.Duration

	systemd string // the folder that exists where systemd is process 1; "": the usual one
}

// Dir returns the folder of an app on the host.
func (s Store) Dir(app string) string { return path.Join(s.root(), app) }

// ServesScript returns arguments for `sh -c script teal args…` that exits with
// 0 while slot serves by what the host remembers, with 1 when it remembers
// that the other one does, and with 0 when it remembers nothing: see
// Teardown.RoutedScript. It is for servers behind load balancers, which cannot
// be asked from there, and says 1 once a State with the other slot's release
// as Active was written.
func (s Store) ServesScript(app string, slot proxy.Slot) (script string, args []string) {
	return compact([]string{servesScript}), []string{path.Join(s.Dir(app), "serves"), string(slot)}
}

func (s Store) root() string {
	if s.Root == "" {
		return DefaultRoot
	}
	return s.Root
}

func (s Store) silence() time.Duration {
	if s.Silence == 0 {
		return DefaultSilence
	}
	return s.Silence
}

func (s Store) orphaned() time.Duration {
	if s.Orphaned == 0 {
		return DefaultOrphaned
	}
	return s.Orphaned
}

func (s Store) systemdFolder() string {
	if s.systemd == "" {
		return "/run/systemd/system"
	}
	return s.systemd
}

// checkName refuses what would not be one folder below another.
func checkName(what, name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%s %q cannot be the name of a folder", what, name)
	}
	return nil
}

// fail makes an error of this package: operation, host, kind, cause. A cause
// that has a kind passes it on.
func fail(h plugins.Host, op string, kind plugins.Kind, err error) error {
	if inner, ok := errors.AsType[*plugins.Error](err); ok {
		kind = inner.Kind
		if error(inner) == err && inner.Host == h.String() { //nolint:errorlint // the outermost alone: the host is said once
			cause := *inner
			cause.Host = ""
			err = &cause
		}
	}
	return &plugins.Error{Op: op, Host: h.String(), Kind: kind, Err: err}
}

// command runs the scripts as one, in sh, without their comments.
func command(scripts []string, args ...string) *plugins.Command {
	return &plugins.Command{Args: append([]string{"sh", "-c", compact(scripts), "teal"}, args...)}
}

// compact joins scripts and leaves out what the shell would skip: they travel
// to every host, and few bytes matter there.
func compact(scripts []string) string {
	var b strings.Builder
	size := 0
	for _, script := range scripts {
		size += len(script)
	}
	b.Grow(size)
	for _, script := range scripts {
		for line := range strings.Lines(script) {
			if line = strings.TrimLeft(line, " \n"); line != "" && line[0] != '#' {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// run runs cmd and returns what it printed. Exit codes that the scripts give a
// meaning become the errors above.
func run(ctx context.Context, h plugins.Host, op string, cmd *plugins.Command) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	err := h.Run(ctx, cmd)
	if err == nil {
		return out.Bytes(), nil
	}
	exit, ok := errors.AsType[*plugins.ExitError](err)
	if !ok {
		return nil, fail(h, op, "", err)
	}
	switch exit.Code {
	case 71, 74:
		return nil, fail(h, op, plugins.Unavailable, scriptError{exit})
	case 76:
		return nil, fail(h, op, plugins.Conflict, ErrFenced)
	case 78:
		return nil, fail(h, op, plugins.Conflict, ErrTooLate)
	case 79:
		return nil, fail(h, op, plugins.NotFound, ErrNoTeardown)
	}
	return nil, fail(h, op, "", scriptError{exit})
}

// A scriptError is the ExitError of a script. Its message is the script's last
// word: that sh has exited, and where, is said around it.
type scriptError struct{ *plugins.ExitError }

func (e scriptError) Error() string {
	text := strings.TrimSpace(string(e.Stderr))
	if text == "" {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

func (e scriptError) Unwrap() error { return e.ExitError }
