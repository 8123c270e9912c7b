package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/plugins"
)

// A forwardedAgent is what the host may use at the moment. sshd makes one agent
// socket a connection, which outlives the command that it was made for; so it
// leads somewhere only while that command runs.
type forwardedAgent struct {
	mu      sync.Mutex
	ring    signingAgent // nil: nothing
	granted bool         // the host has made its socket
}

func (f *forwardedAgent) set(ring signingAgent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = ring
}

func (f *forwardedAgent) current() signingAgent {
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
func (c *Conn) agentFor(ctx context.Context, own *agentConn, identities []string) (signingAgent, error) {
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
		go func() {
			_ = ring.serve(ch) // an error is the end of that program's questions
			_ = ch.Close()
		}()
	}
}

// The messages of the agent's protocol that mean something here.
const (
	agentFailure   = 5
	agentList      = 11
	agentListed    = 12
	agentSign      = 13
	agentSigned    = 14
	agentMaxLength = 256 << 10

	agentFlagSHA256 = 2
	agentFlagSHA512 = 4
)

// A signingAgent can list its keys and sign with them, nothing else. It is
// served here, because the library's server writes a log of its own.
type signingAgent []key

// serve answers questions until the asker has no more.
func (a signingAgent) serve(rw io.ReadWriter) error {
	for {
		var length uint32
		if err := binary.Read(rw, binary.BigEndian, &length); err != nil {
			return err
		}
		if length == 0 || length > agentMaxLength {
			return fmt.Errorf("a question of %d bytes", length)
		}
		question := make([]byte, length)
		if _, err := io.ReadFull(rw, question); err != nil {
			return err
		}
		answer, err := a.answer(question)
		if err != nil {
			answer = []byte{agentFailure}
		}
		if _, err := rw.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return err
		}
	}
}

func (a signingAgent) answer(question []byte) ([]byte, error) {
	switch question[0] {
	case agentList:
		answer := binary.BigEndian.AppendUint32([]byte{agentListed}, uint32(len(a)))
		for _, k := range a {
			answer = append(answer, ssh.Marshal(struct {
				Blob    []byte
				Comment string
			}{k.signer.PublicKey().Marshal(), k.name})...)
		}
		return answer, nil
	case agentSign:
		var q struct {
			Blob  []byte
			Data  []byte
			Flags uint32
		}
		if err := ssh.Unmarshal(question[1:], &q); err != nil {
			return nil, err
		}
		signature, err := a.sign(q.Blob, q.Data, q.Flags)
		if err != nil {
			return nil, err
		}
		return append([]byte{agentSigned}, ssh.Marshal(struct{ Blob []byte }{ssh.Marshal(signature)})...), nil
	default:
		return nil, errors.New("this agent only lists and signs")
	}
}

// sign signs with the algorithm that the flags ask for, which only RSA has
// several of.
func (a signingAgent) sign(blob, data []byte, flags uint32) (*ssh.Signature, error) {
	algorithm := ""
	switch {
	case flags&agentFlagSHA512 != 0:
		algorithm = ssh.KeyAlgoRSASHA512
	case flags&agentFlagSHA256 != 0:
		algorithm = ssh.KeyAlgoRSASHA256
	}
	for _, k := range a {
		if !bytes.Equal(k.signer.PublicKey().Marshal(), blob) {
			continue
		}
		if s, ok := k.signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
			return s.SignWithAlgorithm(rand.Reader, data, algorithm)
		}
		return k.signer.Sign(rand.Reader, data)
	}
	return nil, errors.New("no such key")
}
