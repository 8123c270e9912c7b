package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/teal-deploy/teal/plugins"
)

// A forwardedAgent is what the host may use at the moment. sshd makes one agent
// socket a connection, which outlives the command that it was made for; so it
// leads somewhere only while that command runs.
type forwardedAgent struct {
	mu      sync.Mutex
	ring    agent.Agent // nil: nothing
	granted bool        // the host has made its socket
}

func (f *forwardedAgent) set(ring agent.Agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = ring
}

func (f *forwardedAgent) current() agent.Agent {
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
	own := openAgent(ctx, c.settings.agentSocket)
	defer own.close()
	ring, err := c.agentFor(ctx, own, identities)
	if err != nil {
		return c.fail(ctx, op, plugins.Denied, err)
	}
	c.forwarded.set(ring)
	defer c.forwarded.set(nil)
	return c.run(ctx, cmd, true)
}

// agentFor returns the agent that a command gets.
func (c *Conn) agentFor(ctx context.Context, own *agentConn, identities []string) (agent.Agent, error) {
	ring := &keyring{
		agent: own, hold: func() func() { return func() {} }, decrypt: c.dialer.decrypter(ctx),
	}
	if len(identities) == 0 {
		if own.conn == nil && own.err == nil {
			return nil, errors.New("no agent runs here: start ssh-agent and ssh-add a key, or name key files")
		}
		ring.addAgent()
	}
	x, err := newExpander(c.settings)
	if err != nil {
		return nil, err
	}
	files, err := x.paths(identities)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		ring.addFile(file, true)
	}
	if len(ring.locked) > 0 {
		return nil, fmt.Errorf("no use of %s", strings.Join(ring.locked, ", "))
	}
	return signingAgent(ring.keys), nil
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
		c.ended.Go(func() {
			_ = agent.ServeAgent(ring, ch) // an error is the end of that program's questions
			_ = ch.Close()
		})
	}
}

// A signingAgent can list its keys and sign with them, nothing else.
type signingAgent []key

var _ agent.ExtendedAgent = signingAgent(nil)

var errReadOnly = errors.New("this agent only signs")

// List returns the public halves.
func (a signingAgent) List() ([]*agent.Key, error) {
	var keys []*agent.Key
	for _, k := range a {
		pub := k.signer.PublicKey()
		keys = append(keys, &agent.Key{Format: pub.Type(), Blob: pub.Marshal(), Comment: k.name})
	}
	return keys, nil
}

// Sign signs with the key's default algorithm.
func (a signingAgent) Sign(pub ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return a.SignWithFlags(pub, data, 0)
}

// SignWithFlags signs with the algorithm that the flags ask for.
func (a signingAgent) SignWithFlags(pub ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	algorithm := ""
	switch flags {
	case agent.SignatureFlagRsaSha256:
		algorithm = ssh.KeyAlgoRSASHA256
	case agent.SignatureFlagRsaSha512:
		algorithm = ssh.KeyAlgoRSASHA512
	}
	for _, k := range a {
		if !equal(k.signer.PublicKey(), pub) {
			continue
		}
		if s, ok := k.signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
			return s.SignWithAlgorithm(rand.Reader, data, algorithm)
		}
		return k.signer.Sign(rand.Reader, data)
	}
	return nil, errors.New("no such key")
}

// Signers returns the keys.
func (a signingAgent) Signers() ([]ssh.Signer, error) {
	var signers []ssh.Signer
	for _, k := range a {
		signers = append(signers, k.signer)
	}
	return signers, nil
}

// Extension knows none.
func (a signingAgent) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}

// Add, Remove, RemoveAll, Lock and Unlock are refused.

func (a signingAgent) Add(agent.AddedKey) error   { return errReadOnly }
func (a signingAgent) Remove(ssh.PublicKey) error { return errReadOnly }
func (a signingAgent) RemoveAll() error           { return errReadOnly }
func (a signingAgent) Lock([]byte) error          { return errReadOnly }
func (a signingAgent) Unlock([]byte) error        { return errReadOnly }
