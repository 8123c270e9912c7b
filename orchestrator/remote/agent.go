package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/keys"
	"github.com/teal-deploy/teal/plugins"
)

// A forwardedAgent is what the host may use at the moment. sshd makes one agent
// socket a connection, which outlives the command that it was made for; so it
// leads somewhere only while that command runs.
type forwardedAgent struct {
	mu      sync.Mutex
	ring    keys.Lent // nil: nothing
	granted bool      // the host has made its socket
}

func (f *forwardedAgent) set(ring keys.Lent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = ring
}

func (f *forwardedAgent) current() keys.Lent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ring
}

// RunWithAgent is Run for a command that logs in elsewhere, such as git: it may
// sign with the operator's agent, or only with the keys of the files
// identities, if there are any. No key leaves the operator's machine, and
// nothing can be added or removed. Commands with an agent run one at a time on
// a connection.
func (c *Conn) RunWithAgent(ctx context.Context, cmd *plugins.Command, identities []string) error {
	const op = "forward the agent"
	free, err := c.agents.take(ctx)
	if err != nil {
		return c.fail(ctx, op, plugins.Unavailable, err)
	}
	defer free()
	own := keys.OpenAgent(ctx, c.settings.AgentSocket)
	defer own.Close()
	ring, err := c.agentFor(ctx, own, identities)
	if err != nil {
		return c.fail(ctx, op, plugins.Denied, err)
	}
	c.forwarded.set(ring)
	defer c.forwarded.set(nil)
	return c.run(ctx, cmd, true)
}

// agentFor returns the agent that a command gets.
func (c *Conn) agentFor(ctx context.Context, own *keys.Agent, identities []string) (keys.Lent, error) {
	ring := &keys.Ring{
		Agent: own, Hold: func() func() { return func() {} }, Decrypt: c.dialer.keys.Decrypter(ctx, c.dialer.Passphrase),
	}
	if len(identities) == 0 {
		if c.settings.AgentSocket == "" {
			return nil, errors.New("no agent runs here: start ssh-agent and ssh-add a key, or name key files")
		}
		ring.AddAgent()
	}
	files, err := c.settings.ExpandPaths(identities)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		ring.AddFile(file, true)
	}
	if len(ring.Locked) > 0 {
		return nil, fmt.Errorf("no use of %s", strings.Join(ring.Locked, ", "))
	}
	return keys.Lent(ring.Keys), nil
}

// requestAgent asks the host for its end of the agent. sshd says yes once a
// connection; the socket serves later sessions as well.
func (c *Conn) requestAgent(ctx context.Context, s *session) error {
	err := s.request(ctx, "auth-agent-req@openssh.com", nil)
	c.forwarded.mu.Lock()
	defer c.forwarded.mu.Unlock()
	if err == nil || c.forwarded.granted && ctx.Err() == nil {
		c.forwarded.granted = true
		return nil
	}
	return fmt.Errorf("%w: see AllowAgentForwarding of its sshd", err)
}

// serveAgent answers the host's programs that ask the agent.
func (c *Conn) serveAgent() {
	for open := range c.login.client.HandleChannelOpen("auth-agent@openssh.com") {
		ring := c.forwarded.current()
		if ring == nil {
			_ = open.Reject(ssh.Prohibited, "no command here has an agent")
			continue
		}
		ch, reqs, err := open.Accept()
		if err != nil {
			continue // the connection is ending
		}
		go ssh.DiscardRequests(reqs)
		go func() {
			_ = ring.Serve(ch) // an error is the end of that program's questions
			_ = ch.Close()
		}()
	}
}
