package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/shell"
	"github.com/teal-deploy/teal/plugins"
)

// becomeProbe finds out what it takes to become root: nothing (root), what is
// missing, or sudo, which works at once when the script succeeds.
const becomeProbe = `[ "$(id -u)" != 0 ] || { echo root; exit 0; }
command -v sudo >/dev/null || { echo missing; exit 0; }
echo sudo
exec sudo -n -H -- sh -c :`

// becomes returns how a command gets root's rights, if it shall have them. The
// answer is looked for once a connection.
func (c *Conn) becomes(ctx context.Context, wanted bool) (shell.Become, error) {
	if !wanted || c.settings.Become == "" {
		return shell.None, nil
	}
	free, err := c.becoming.take(ctx)
	if err != nil {
		return 0, err
	}
	defer free()
	if c.become != nil {
		return *c.become, nil
	}
	b, err := c.probeBecome(ctx)
	if err != nil {
		return 0, err
	}
	c.become = &b
	return b, nil
}

func (c *Conn) probeBecome(ctx context.Context) (shell.Become, error) {
	var out bytes.Buffer
	err := c.run(ctx, &plugins.Command{Args: []string{"sh", "-c", becomeProbe}, Stdout: &out}, false)
	var exit *plugins.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	switch answer := strings.TrimSpace(out.String()); {
	case answer == "root":
		return shell.None, nil
	case answer == "missing":
		return 0, errors.New("become = \"sudo\", but the host has no sudo: install it, or log in as root")
	case exit == nil:
		return shell.Sudo, nil
	}
	return shell.SudoPassword, c.askBecomePassword(ctx, exit)
}

// askBecomePassword asks for sudo's password and tries it once, apart from any
// command: a wrong one costs one attempt and nothing else.
func (c *Conn) askBecomePassword(ctx context.Context, refusal *plugins.ExitError) error {
	if c.dialer.BecomePassword == nil {
		return fmt.Errorf("sudo wants a password and nobody can be asked (%s): let it be asked for with --ask-become-password, or allow it without one, "+
			"%q in /etc/sudoers.d/teal", lastLine(refusal.Stderr), c.settings.User+" ALL=(root) NOPASSWD: ALL")
	}
	password, err := c.dialer.BecomePassword(ctx, c.name)
	if err != nil {
		return fmt.Errorf("ask for sudo's password: %w", err)
	}
	err = c.run(ctx, &plugins.Command{
		Args:  []string{"sudo", "-k", "-S", "-p", "", "-H", "--", "sh", "-c", ":"},
		Stdin: strings.NewReader(password + "\n"),
	}, false)
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		return fmt.Errorf("sudo refuses: %s", lastLine(exit.Stderr))
	}
	if err == nil {
		c.password = password
	}
	return err
}

// lastLine returns the last line of a text that says something.
func lastLine(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.TrimSpace(lines[len(lines)-1]))
}
