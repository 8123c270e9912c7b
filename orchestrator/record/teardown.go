package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// Arm gives the host the order to remove a release once nobody uses it, and
// returns when the order is durable and a process on the host works on it. It
// is meant to be called before the switch: the teardown waits until the proxy
// no longer routes to t.Slot, until the run has let go of it or is dead, until
// t.Delay has passed since the switch, and until the containers have no
// connection or t.Max has passed.
//
// A second call for the same release changes nothing. When Arm fails, Cancel
// takes back what it may have left. An order that an earlier run
// armed is replaced; ErrTooLate when that one is being carried out.
func (l *Lock) Arm(ctx context.Context, t Teardown) error {
	op := "arm the teardown of " + t.Release
	t.App = l.app
	if t.Armed.IsZero() {
		t.Armed = time.Now()
	}
	order, err := orderFile(t, l.epoch, l.store.orphaned())
	if err != nil {
		return fail(l.host, op, plugins.Invalid, err)
	}
	systemd := l.store.systemdFolder()
	out, err := l.run(ctx, op, []string{baseScript, holdingScript, ordersScript, armScript, startScript}, order, t.Release, strconv.Itoa(len(order)), systemd)
	if err != nil {
		return err
	}
	return l.store.startElse(ctx, l.host, op, l.app, out)
}

// Let says that the run needs the release no more: its teardown may go on.
// ErrNoTeardown when there is none.
func (l *Lock) Let(ctx context.Context, release string) error {
	_, err := l.run(ctx, "let go of "+release, []string{baseScript, ordersScript, letScript}, nil, release)
	return err
}

// Cancel takes an order back. When it returns nil, it is certain that the
// teardown has stopped nothing and will not. ErrTooLate when the containers
// are being stopped, ErrNoTeardown when there is no order: cancelled before,
// or carried out.
func (l *Lock) Cancel(ctx context.Context, release string) error {
	_, err := l.run(ctx, "cancel the teardown of "+release, []string{baseScript, ordersScript, cancelScript}, nil, release)
	return err
}

// Reap starts a process for every teardown of the app that has none: after a
// reboot, or when it was killed. It needs no lock, and several at once are as
// good as one.
func (s Store) Reap(ctx context.Context, h plugins.Host, app string) error {
	op := "resume the teardowns of " + app
	if err := checkName("app", app); err != nil {
		return fail(h, op, plugins.Invalid, err)
	}
	out, err := run(ctx, h, op, startCommand(s.Dir(app), "login", "", s.systemdFolder()))
	if err != nil {
		return err
	}
	return s.startElse(ctx, h, op, app, out)
}

func startCommand(args ...string) *plugins.Command {
	return command([]string{baseScript, holdingScript, ordersScript, startScript}, args...)
}

// startElse goes on where the login user may not start a unit of systemd: with
// become, and where that does not help without systemd.
func (s Store) startElse(ctx context.Context, h plugins.Host, op, app string, out []byte) error {
	user, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "become ")
	if !ok {
		return nil
	}
	cmd := startCommand(s.Dir(app), "become", user, s.systemdFolder())
	cmd.Become = true
	out, err := run(ctx, h, op, cmd)
	if err == nil && len(out) == 0 {
		return nil
	}
	if plugins.KindOf(err) == plugins.Lost || ctx.Err() != nil {
		return err
	}
	_, err = run(ctx, h, op, startCommand(s.Dir(app), "plain", "", s.systemdFolder()))
	return err
}

// validate refuses an order that could not be carried out as it is meant.
func (t Teardown) validate() error {
	if err := checkName("release", t.Release); err != nil {
		return err
	}
	switch {
	case len(t.Containers) == 0:
		return errors.New("it names no container")
	case t.Delay < 0 || t.Max < t.Delay:
		return fmt.Errorf("a delay of %s does not fit into a maximum of %s", t.Delay, t.Max)
	}
	for _, c := range t.Containers {
		if len(c.Commands.PID) == 0 || len(c.Commands.Stop) == 0 || len(c.Commands.Remove) == 0 {
			return fmt.Errorf("container %s lacks a command", c.ID)
		}
	}
	if i := slices.IndexFunc(t.Successor, func(c Condemned) bool { return len(c.Commands.PID) == 0 }); i >= 0 {
		return fmt.Errorf("container %s lacks the command that says whether it runs", t.Successor[i].ID)
	}
	return nil
}

// orderFile returns the file that is order and program in one: its first line
// is the Teardown for Observe, the rest is for sh. One file appears whole or
// not at all, and goes on working when teal on the operator's machine changes.
func orderFile(t Teardown, epoch int64, orphaned time.Duration) ([]byte, error) {
	if err := t.validate(); err != nil {
		return nil, err
	}
	header, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	release, err := quote(t.Release)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "#%s\nrelease=%s\nepoch=%d\n", header, release, epoch)
	fmt.Fprintf(&b, "delay=%d\nmax=%d\norphaned=%d\n", hundredths(t.Delay), hundredths(t.Max), hundredths(orphaned))
	if err := writeCommands(&b, t); err != nil {
		return nil, err
	}
	b.WriteString(compact([]string{baseScript, holdingScript, ordersScript, teardownScript}))
	return b.Bytes(), nil
}

// writeCommands writes what differs from order to order: the keys of the
// containers, their ports, and the commands as they stand.
func writeCommands(b *bytes.Buffer, t Teardown) error {
	var condemned, successor []string
	var cases bytes.Buffer
	add := func(name string, args []string) error {
		words, err := quoteAll(args)
		if err != nil {
			return err
		}
		fmt.Fprintf(&cases, "%s) %s ;;\n", name, words)
		return nil
	}
	for i, c := range t.Containers {
		key := "c" + strconv.Itoa(i)
		condemned = append(condemned, key)
		if c.Port != 0 {
			fmt.Fprintf(b, "port_%s=%04X\n", key, c.Port)
		}
		err := errors.Join(add("pid_"+key, c.Commands.PID), add("stop_"+key, c.Commands.Stop), add("remove_"+key, c.Commands.Remove))
		if err != nil {
			return err
		}
	}
	for i, c := range t.Successor {
		key := "s" + strconv.Itoa(i)
		successor = append(successor, key)
		if err := add("pid_"+key, c.Commands.PID); err != nil {
			return err
		}
	}
	routed := "return 1"
	if t.RoutedScript != "" {
		words, err := quoteAll(append([]string{"sh", "-c", t.RoutedScript, "teal"}, t.RoutedArgs...))
		if err != nil {
			return err
		}
		routed = words
	}
	fmt.Fprintf(b, "condemned='%s'\nsuccessor='%s'\n", strings.Join(condemned, " "), strings.Join(successor, " "))
	fmt.Fprintf(b, "routed() {\n%s\n}\nrun() {\ncase $1 in\n%sesac\n}\n", routed, cases.Bytes())
	return nil
}

// hundredths returns d in hundredths of a second, rounded up.
func hundredths(d time.Duration) int64 {
	const unit = 10 * time.Millisecond
	return int64((d + unit - 1) / unit)
}
