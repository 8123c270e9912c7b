package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// A prompt asks the operator for secrets on the terminal, whatever standard
// input and output are, one question at a time. What draws there meanwhile is
// paused.
type prompt struct {
	mu     sync.Mutex
	pause  func() (resume func()) // nil: nothing draws
	become string
}

var errNoTerminal = errors.New("there is no terminal to ask on")

func (p *prompt) secret(ctx context.Context, question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ask(ctx, question)
}

// once asks the first time and remembers the answer for every other host.
func (p *prompt) once(ctx context.Context, question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.become != "" {
		return p.become, nil
	}
	var err error
	p.become, err = p.ask(ctx, question)
	return p.become, err
}

// drawn tells the prompt what draws on the terminal from now on.
func (p *prompt) drawn(pause func() (resume func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = pause
}

// ask returns when there is an answer or ctx ends. Nothing can end the reading
// of a terminal, so in the second case it goes on until the process ends.
func (p *prompt) ask(ctx context.Context, question string) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	fd := int(tty.Fd())
	settings, err := term.GetState(fd)
	if err != nil {
		_ = tty.Close()
		return "", errNoTerminal
	}
	if p.pause != nil {
		defer p.pause()()
	}
	fmt.Fprintf(tty, "%s: ", question)
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { _ = tty.Close() }()
		text, err := term.ReadPassword(fd)
		fmt.Fprintln(tty)
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		return string(a.text), a.err
	case <-ctx.Done():
		_ = term.Restore(fd, settings) // shows what is typed again
		return "", context.Cause(ctx)
	}
}
