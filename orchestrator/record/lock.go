package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// A HeldError says that somebody else has an app's lock on a host.
type HeldError struct {
	Host  string
	App   string
	Owner Owner // zero when the holder has not said yet who it is
}

// Error says who holds the lock, since when, from where and for what.
func (e *HeldError) Error() string {
	if e.Owner.By == "" {
		return fmt.Sprintf("%s: lock of %s: held by another run", e.Host, e.App)
	}
	return fmt.Sprintf("%s: lock of %s: held by %s (process %d there) since %s for %s %s", e.Host, e.App,
		e.Owner.By, e.Owner.PID, e.Owner.Since.UTC().Format(time.RFC3339), e.Owner.Command, e.Owner.Run)
}

// Is reports that a HeldError is of kind plugins.Conflict.
func (e *HeldError) Is(target error) bool { return target == plugins.Conflict }

// A Lock is the right to change an app on a host. It lives as long as its
// connection: a byte goes there and back five times in the limit Store.Silence,
// which costs the host three short processes. When the host hears nothing for that long it lets go and ends
// the connection that held the lock; this side gives up after two thirds of
// it, so that nobody acts on a lock that somebody else may have. The lock stays
// for a second or two after that connection, in which the commands of the
// former owner end.
//
// All methods may be called at the same time by several goroutines.
type Lock struct {
	store Store
	host  plugins.Host
	app   string
	owner Owner
	epoch int64

	ctx      context.Context // ends with cause ErrLost or ErrReleased
	end      context.CancelCauseFunc
	lost     chan struct{}
	stdin    *io.PipeWriter
	stop     context.CancelFunc // ends the holder by force
	done     chan struct{}      // the holder has ended
	heard    chan struct{}      // an echo
	releases sync.Once
	runErr   error // of the holder; read after done
}

// Acquire takes the lock of an app, makes the app's folder where it is not
// there, and raises the epoch. ctx bounds the taking alone: the lock stays
// until Release. A *HeldError says who has it; kind Denied comes with the
// command that grants what is missing.
func (s Store) Acquire(ctx context.Context, h plugins.Host, app string, o Owner) (*Lock, error) {
	op := "lock " + app
	if err := checkName("app", app); err != nil {
		return nil, fail(h, op, plugins.Invalid, err)
	}
	if s.silence() < time.Second || s.silence()%time.Second != 0 {
		return nil, fail(h, op, plugins.Invalid, fmt.Errorf("a silence of %s is not a whole number of seconds", s.silence()))
	}
	l, answer, err := s.take(ctx, h, app, o)
	if err != nil || l != nil {
		return l, err
	}
	word, rest, _ := strings.Cut(answer, " ")
	if word == "denied" {
		if err := s.setup(ctx, h, app, rest); err != nil {
			return nil, fail(h, op, plugins.Denied, err)
		}
		if l, answer, err = s.take(ctx, h, app, o); err != nil || l != nil {
			return l, err
		}
	}
	return nil, s.refusal(h, app, answer)
}

// setup makes the folders with the rights of become. login is "UID GID NAME".
func (s Store) setup(ctx context.Context, h plugins.Host, app, login string) error {
	ids := strings.Fields(login)
	if len(ids) < 3 {
		return fmt.Errorf("not understood: %q", login)
	}
	cmd := command([]string{setupScript}, s.root(), app, ids[0], ids[1])
	cmd.Become = true
	_, err := run(ctx, h, "make "+s.Dir(app), cmd)
	if _, ok := errors.AsType[*plugins.ExitError](err); ok {
		return fmt.Errorf("%s may not write in %s; grant it: sudo install -d -o %s -m 755 %s", ids[2], s.root(), ids[2], s.root())
	}
	return err
}

// refusal makes an error of what the host said instead of "locked".
func (s Store) refusal(h plugins.Host, app, answer string) error {
	op := "lock " + app
	word, rest, _ := strings.Cut(answer, " ")
	switch word {
	case "held":
		held := &HeldError{Host: h.String(), App: app}
		_ = json.Unmarshal([]byte(rest), &held.Owner) // the lock is held whether or not its file can be read
		return held
	case "denied":
		name := rest[strings.LastIndexByte(rest, ' ')+1:]
		return fail(h, op, plugins.Denied, fmt.Errorf("%s may not write in %s, which belongs to another user; grant it: sudo chown -R %s %s",
			name, s.Dir(app), name, s.Dir(app)))
	case "lacks":
		return fail(h, op, plugins.Unsupported, fmt.Errorf("the host has no program %q; install coreutils or busybox", rest))
	case "damaged":
		return fail(h, op, plugins.Invalid, fmt.Errorf("%s is no number; write the number of the last lock into it", path.Join(s.Dir(app), "epoch")))
	}
	return fail(h, op, plugins.Invalid, fmt.Errorf("not understood: %q", answer))
}

// take starts the holder and waits for its first line. No lock and no error:
// the answer says why.
func (s Store) take(ctx context.Context, h plugins.Host, app string, o Owner) (*Lock, string, error) {
	if o.Since.IsZero() {
		o.Since = time.Now()
	}
	owner, err := json.Marshal(o)
	if err != nil {
		return nil, "", fail(h, "lock "+app, plugins.Invalid, err)
	}
	stdin, feed := io.Pipe()
	l := &Lock{
		store: s, host: h, app: app, owner: o,
		lost: make(chan struct{}), stdin: feed,
		done: make(chan struct{}), heard: make(chan struct{}, 1),
	}
	l.ctx, l.end = context.WithCancelCause(context.WithoutCancel(ctx))
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	echo := &echo{first: make(chan string, 1), heard: l.heard}
	seconds := strconv.Itoa(int(s.silence() / time.Second))
	cmd := command([]string{baseScript, holdingScript, lockScript}, s.Dir(app), seconds, string(owner))
	cmd.Stdin, cmd.Stdout = stdin, echo
	go func() {
		defer close(l.done)
		l.runErr = h.Run(holding, cmd)
		_ = stdin.Close() // a beat under way is not waited for
	}()

	var answer string
	select {
	case answer = <-echo.first:
	case <-l.done:
		select {
		case answer = <-echo.first: // both at once
		default:
			l.abandon()
			return nil, "", fail(h, "lock "+app, "", orElse(l.runErr, errors.New("the holder said nothing")))
		}
	case <-ctx.Done():
		l.abandon()
		return nil, "", fail(h, "lock "+app, "", context.Cause(ctx))
	}
	if _, err := fmt.Sscanf(answer, "locked %d", &l.epoch); err != nil {
		l.abandon()
		return nil, answer, nil //nolint:nilerr // the caller knows what other answers mean
	}
	go l.beat(s.silence() / 5)
	go l.watch(s.silence() * 2 / 3)
	return l, "", nil
}

// abandon ends a holder that did not get the lock, or nobody waits for.
func (l *Lock) abandon() {
	_ = l.stdin.Close()
	l.stop()
	l.end(ErrReleased)
}

// beat writes a byte for each interval until the holder's input is closed.
func (l *Lock) beat(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if _, err := l.stdin.Write([]byte{'.'}); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// watch declares the lock lost when no echo comes for patience, or when the
// holder ends by itself.
func (l *Lock) watch(patience time.Duration) {
	silence := time.NewTimer(patience)
	defer silence.Stop()
	for {
		select {
		case <-l.heard:
			silence.Reset(patience)
		case <-silence.C:
			l.lose(fmt.Errorf("%w: nothing heard from the host for %s", ErrLost, patience))
			return
		case <-l.done:
			l.lose(fmt.Errorf("%w: %w", ErrLost, orElse(l.runErr, errors.New("its holder on the host ended"))))
			return
		case <-l.ctx.Done():
			return
		}
	}
}

// lose ends what is under way and the connection: after this moment another
// run may have the host.
func (l *Lock) lose(cause error) {
	l.end(fail(l.host, "lock "+l.app, plugins.Lost, cause))
	if errors.Is(l.Err(), ErrReleased) {
		return
	}
	close(l.lost)
	_ = l.stdin.Close()
	l.stop()
	if c, ok := l.host.(io.Closer); ok {
		_ = c.Close() // it is dead; nothing depends on how it closes
	}
}

// Lost returns a channel that is closed when the lock is lost: its
// connection went away, or the host was not heard for two thirds of
// Store.Silence. A Host with a method Close is closed then, too. Nothing may
// be changed on the host from then on.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Err returns nil while the lock is held, ErrReleased after Release, and why
// it was lost, an error that wraps ErrLost, after that.
func (l *Lock) Err() error { return context.Cause(l.ctx) }

// Epoch returns the number of this lock: greater than that of any before.
func (l *Lock) Epoch() int64 { return l.epoch }

// Release gives the lock back and waits until the host has let go of it. The
// connection stays usable. It returns why the lock was lost, when it was. A
// second call does nothing.
func (l *Lock) Release(ctx context.Context) error {
	var err error
	l.releases.Do(func() { err = l.release(ctx) })
	return err
}

func (l *Lock) release(ctx context.Context) error {
	l.end(ErrReleased)
	if err := l.Err(); !errors.Is(err, ErrReleased) {
		return err
	}
	_ = l.stdin.Close()
	defer l.stop()
	select {
	case <-l.done:
		if l.runErr != nil {
			return fail(l.host, "unlock "+l.app, "", l.runErr)
		}
		return nil
	case <-ctx.Done():
		return fail(l.host, "unlock "+l.app, plugins.Unavailable, context.Cause(ctx))
	}
}

// run runs scripts, whose first arguments are folder and epoch. It ends when
// the lock does.
func (l *Lock) run(ctx context.Context, op string, scripts []string, stdin []byte, args ...string) ([]byte, error) {
	if err := l.Err(); err != nil {
		return nil, fail(l.host, op, plugins.Lost, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(l.Err()) })() //nolint:contextcheck // ends with the lock, too
	cmd := command(scripts, append([]string{l.store.Dir(l.app), strconv.FormatInt(l.epoch, 10)}, args...)...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	return run(ctx, l.host, op, cmd)
}

// echo is the holder's standard output: a line, then a byte for each beat.
type echo struct {
	first chan string
	heard chan<- struct{}
	line  []byte
	said  bool
}

func (e *echo) Write(p []byte) (int, error) {
	if !e.said {
		e.line = append(e.line, p...)
		line, _, ok := bytes.Cut(e.line, []byte{'\n'})
		if !ok {
			return len(p), nil
		}
		e.said = true
		e.first <- string(line)
		return len(p), nil
	}
	select {
	case e.heard <- struct{}{}:
	default: // one that was not looked at yet is enough
	}
	return len(p), nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
