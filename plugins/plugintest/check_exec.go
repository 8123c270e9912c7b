package plugintest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// says checks what a command in a container writes.
func (s *suite) says(ctx context.Context, id, want string, args ...string) error {
	var out bytes.Buffer
	if err := s.rt.Exec(ctx, s.h, id, &plugins.Command{Args: args, Stdout: &out}); err != nil {
		return fmt.Errorf("%q: %w", args, err)
	}
	if got := strings.TrimSuffix(out.String(), "\n"); got != want {
		return fmt.Errorf("%q wrote %q, not %q", args, got, want)
	}
	return nil
}

func (s *suite) exec(ctx context.Context) error {
	c, err := s.rt.Create(ctx, s.h, s.spec("exec"))
	if err != nil {
		return err
	}
	var out, errs bytes.Buffer
	err = s.rt.Exec(ctx, s.h, c.ID, &plugins.Command{
		Args:   []string{"sh", "-c", `cat; echo "$0 $1 $VALUE"; echo problem >&2; exit 3`, "a b", "c"},
		Env:    map[string]string{"VALUE": "d e"},
		Stdin:  strings.NewReader("input\n"),
		Stdout: &out,
		Stderr: &errs,
	})
	var all []error
	var exit *plugins.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || string(exit.Stderr) != "problem\n" || exit.Host != s.h.String() || len(exit.Args) != 5 {
		all = append(all, fmt.Errorf("a command that exits with code 3: %w", cmp.Or(err, errors.New("no error"))))
	}
	if out.String() != "input\na b c d e\n" || errs.String() != "problem\n" {
		all = append(all, fmt.Errorf("standard output is %q, standard error is %q", &out, &errs))
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	out.Reset()
	err = s.rt.Exec(ctx, s.h, c.ID, &plugins.Command{Args: []string{"cat"}, Stdin: bytes.NewReader(big), Stdout: &out})
	if err != nil || !bytes.Equal(out.Bytes(), big) {
		all = append(all, fmt.Errorf("1 MiB came back as %d bytes: %w", out.Len(), cmp.Or(err, errors.New("no error"))))
	}
	err = s.rt.Exec(ctx, s.h, c.ID, &plugins.Command{Args: []string{"no-such-program"}})
	if !errors.As(err, &exit) || exit.Code != 126 && exit.Code != 127 {
		all = append(all, fmt.Errorf("a program that is not there: %w", cmp.Or(err, errors.New("no error"))))
	}
	err = s.rt.Exec(ctx, s.h, s.label+"-missing", &plugins.Command{Args: []string{"true"}})
	all = append(all, wantKind(err, plugins.NotFound, "a container that is not there"))
	return errors.Join(all...)
}

func (s *suite) execCancelled(ctx context.Context) error {
	c, err := s.rt.Create(ctx, s.h, s.spec("cancel"))
	if err != nil {
		return err
	}
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	err = s.rt.Exec(short, s.h, c.ID, &plugins.Command{
		Args:   []string{"sh", "-c", "while :; do echo x >>tick; echo x; sleep 0.05; done"},
		Stdout: onWrite(cancel),
	})
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the error is %w", cmp.Or(err, errors.New("nil")))
	}
	var size, later bytes.Buffer
	measure := func(w io.Writer) error {
		return s.rt.Exec(ctx, s.h, c.ID, &plugins.Command{Args: []string{"cat", "tick"}, Stdout: w})
	}
	if err := measure(&size); err != nil {
		return err
	}
	if err := wait(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	if err := measure(&later); err != nil {
		return err
	}
	if later.Len() != size.Len() {
		return errors.New("the command goes on in the container")
	}
	return nil
}

// onWrite calls a function for all that is written.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}
