package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// A prompt asks the operator on the terminal, whatever standard input and
// output are, one question at a time. What draws there meanwhile is paused.
type prompt struct {
	mu     sync.Mutex
	pause  func() (resume func()) // nil: nothing draws
	become string
}

var errNoTerminal = errors.New("there is no terminal to ask on")

func (p *prompt) secret(ctx context.Context, question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ask(ctx, question+": ", hidden)
}

// confirm asks whether to do something. Anything but a yes means no.
func (p *prompt) confirm(ctx context.Context, question string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, err := p.ask(ctx, "\n"+question+" [y/N] ", visible)
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", err
}

// once asks the first time and remembers the answer for every other host.
func (p *prompt) once(ctx context.Context, question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.become != "" {
		return p.become, nil
	}
	var err error
	p.become, err = p.ask(ctx, question+": ", hidden)
	return p.become, err
}

// drawn tells the prompt what draws on the terminal from now on.
func (p *prompt) drawn(pause func() (resume func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = pause
}

// say writes a line to out while nothing draws on the terminal.
func (p *prompt) say(out io.Writer, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause != nil {
		defer p.pause()()
	}
	fmt.Fprintln(out, text)
}

// ask returns when there is an answer or ctx ends. Nothing can end the reading
// of a terminal, so in the second case it goes on until the process ends.
func (p *prompt) ask(ctx context.Context, question string, read func(tty *os.File) (string, error)) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	settings, err := term.GetState(int(tty.Fd()))
	if err != nil {
		_ = tty.Close()
		return "", errNoTerminal
	}
	if p.pause != nil {
		defer p.pause()()
	}
	fmt.Fprint(tty, question)
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { _ = tty.Close() }()
		text, err := read(tty)
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-ctx.Done():
		_ = term.Restore(int(tty.Fd()), settings) // shows what is typed again
		return "", context.Cause(ctx)
	}
}

// hidden reads a line that the terminal does not show.
func hidden(tty *os.File) (string, error) {
	text, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return string(text), err
}

// visible reads a line. Its end may be that of what can be read.
func visible(tty *os.File) (string, error) {
	text, err := bufio.NewReader(tty).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text, err
}
