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
// input and output are, one question at a time.
type prompt struct {
	mu     sync.Mutex
	become string
}

var errNoTerminal = errors.New("there is no terminal to ask on")

func (p *prompt) secret(_ context.Context, question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ask(question)
}

// once asks the first time and remembers the answer for every other host.
func (p *prompt) once(_ context.Context, question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.become != "" {
		return p.become, nil
	}
	var err error
	p.become, err = ask(question)
	return p.become, err
}

func ask(question string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	defer func() { _ = tty.Close() }()
	fmt.Fprintf(tty, "%s: ", question)
	answer, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return string(answer), err
}
