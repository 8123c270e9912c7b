package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/hostkeys"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/keys"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/sshconfig"
	"github.com/teal-deploy/teal/plugins"
)

// hostPatience is how long every sshd waits for a login.
const hostPatience = 10 * time.Second

// A handshake is one attempt to log in. It remembers how far it came and what
// was offered, because the library's errors tell neither.
type handshake struct {
	ctx       context.Context // callbacks of the library have none
	transport *transport
	settings  *sshconfig.Settings
	clock     *clock
	agent     *keys.Agent
	offered   []string      // keys and methods, in words
	locked    []string      // keys that could not be offered, with the reason
	hostKnown bool          // the host key was accepted
	waited    time.Duration // for the operator
}

// close gives back what the attempt needed.
func (hs *handshake) close() { hs.agent.Close() }

// dropped reports whether err is what sshd does to an attempt that it has no
// room for, or whose operator thought longer than its patience. To try again
// is no new guess at a login.
func (hs *handshake) dropped(err error) bool {
	return isDrop(err) && (!hs.hostKnown || hs.waited > hostPatience)
}

// explain says what err means for the operator.
func (hs *handshake) explain(err error) error {
	if known, ok := errors.AsType[*plugins.Error](err); ok {
		return known
	}
	if _, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return kindError(plugins.Unsupported, err)
	}
	if !hs.hostKnown {
		return kindError(plugins.Unavailable, fmt.Errorf("%w: the host hung up or speaks no SSH", err))
	}
	text := fmt.Sprintf("%s may not log in (%v); ", hs.settings.Login(), err)
	if len(hs.offered) == 0 {
		text += "there was no key to offer"
	} else {
		text += "offered: " + strings.Join(hs.offered, ", ")
	}
	if len(hs.locked) > 0 {
		text += "; not offered: " + strings.Join(hs.locked, ", ")
	}
	return kindError(plugins.Denied, errors.New(text))
}

// clientConfig returns the configuration of the library for an attempt. The
// methods are one of each kind: of two lists of keys only the first is tried.
func (d *Dialer) clientConfig(hs *handshake) (*ssh.ClientConfig, error) {
	s := hs.settings
	policy := &hostkeys.Policy{
		Known: &d.known, Files: s.KnownHosts, Name: s.HostKeyName(), AcceptNew: s.AcceptNew, Warn: d.log().Warn,
	}
	algorithms, err := policy.Algorithms()
	if err != nil {
		return nil, err
	}
	config := &ssh.ClientConfig{
		User:              s.User,
		HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			err := policy.Check(name, remote, key)
			hs.hostKnown = err == nil
			return err
		},
		BannerCallback: func(text string) error {
			d.log().Debug("banner", "host", s.Alias, "text", text)
			return nil
		},
		ClientVersion: "SSH-2.0-teal",
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			return d.offer(hs), nil
		})},
	}
	if d.Password != nil {
		p := &passwordLogin{hs: hs, ask: d.Password}
		config.Auth = append(config.Auth, ssh.KeyboardInteractive(p.answer), ssh.PasswordCallback(p.password))
	}
	return config, nil
}

// offer collects the keys to be tried: first those that are configured, then,
// unless IdentitiesOnly says otherwise, what else the agent holds. Each key
// counts against the host's MaxAuthTries.
func (d *Dialer) offer(hs *handshake) []ssh.Signer {
	s := hs.settings
	hs.agent = keys.OpenAgent(hs.ctx, s.AgentSocket)
	ring := &keys.Ring{Agent: hs.agent, Hold: hs.hold, Decrypt: d.keys.Decrypter(hs.ctx, d.Passphrase)}
	for _, file := range s.Identities {
		ring.AddFile(file, s.IdentitiesGiven)
	}
	ring.AddCertificates(s.Certificates)
	if !s.IdentitiesOnly {
		ring.AddAgent()
	}
	hs.locked = ring.Locked
	signers := make([]ssh.Signer, len(ring.Keys))
	for i, k := range ring.Keys {
		signers[i] = k.Signer
		hs.offered = append(hs.offered, fmt.Sprintf("%s (%s)", k.Name, hostkeys.Fingerprint(k.Signer.PublicKey())))
	}
	return signers
}

// hold stops the clock while the operator is asked, or while a security key
// waits to be touched.
func (hs *handshake) hold() (resume func()) {
	began, restart := time.Now(), hs.clock.hold()
	return func() {
		restart()
		hs.waited += time.Since(began)
	}
}

// A passwordLogin answers with one password however the host asks for it.
type passwordLogin struct {
	hs   *handshake
	ask  func(ctx context.Context, host string) (string, error)
	once bool // it was given: a second time it would be as wrong
}

var errPassword = errors.New("the password is refused")

// password is an ssh.PasswordCallback.
func (p *passwordLogin) password() (string, error) {
	if p.once {
		return "", errPassword
	}
	p.once = true
	p.hs.offered = append(p.hs.offered, "a password")
	defer p.hs.hold()()
	return p.ask(p.hs.ctx, p.hs.settings.Login())
}

// answer is an ssh.KeyboardInteractiveChallenge. A host may ask for nothing,
// and does when it is done.
func (p *passwordLogin) answer(_, _ string, questions []string, _ []bool) ([]string, error) {
	answers := make([]string, len(questions))
	if len(questions) == 0 {
		return answers, nil
	}
	password, err := p.password()
	if err != nil {
		return nil, err
	}
	for i := range answers {
		answers[i] = password
	}
	return answers, nil
}
