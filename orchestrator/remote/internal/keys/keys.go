// Package keys collects the private keys that may be used somewhere: from
// files, with their certificates, and from the operator's agent; and lends
// them to a host without giving them away.
package keys

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/gate"
)

// passphraseTries is how often the operator may mistype.
const passphraseTries = 3

// A Key is a signer with the name that a person knows it by.
type Key struct {
	Name   string
	Signer ssh.Signer
}

// A Ring collects keys to be offered, in order, each once.
type Ring struct {
	Agent   *Agent
	Hold    func() (resume func())                             // stops a clock while somebody is asked
	Decrypt func(file string, text []byte) (ssh.Signer, error) // nil: nobody can be asked

	Keys   []Key
	Locked []string // what cannot be offered, and why
}

// AddFile adds the key of a file with its certificate. The agent goes first:
// it spares the passphrase. given says that a missing file is no default.
func (r *Ring) AddFile(file string, given bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		pub, _ := publicHalf(file + ".pub")
		if !r.addFromAgent(file, pub) && (given || !os.IsNotExist(err)) {
			r.lock(file, errors.Unwrap(err))
		}
		return
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err == nil {
		r.add(file, signer)
		return
	}
	var missing *ssh.PassphraseMissingError
	if !errors.As(err, &missing) {
		pub, notPublic := publicHalf(file)
		if notPublic != nil {
			r.lock(file, err)
		} else if !r.addFromAgent(file, pub) {
			r.lock(file, errors.New("a public key, and the agent does not hold the other half"))
		}
		return
	}
	pub := missing.PublicKey
	if pub == nil {
		pub, _ = publicHalf(file + ".pub")
	}
	switch {
	case r.addFromAgent(file, pub):
	case r.Decrypt == nil:
		r.lock(file, errors.New("encrypted, and the agent does not hold it"))
	case pub != nil:
		// The passphrase is asked for once the host has said that it would
		// take this key.
		r.add(file, &slowSigner{pub, r.Hold, func() (ssh.Signer, error) { return r.Decrypt(file, text) }})
	default:
		resume := r.Hold()
		signer, err := r.Decrypt(file, text)
		resume()
		if err != nil {
			r.lock(file, err)
			return
		}
		r.add(file, signer)
	}
}

// addFromAgent adds what the agent holds for pub: the key and certificates.
func (r *Ring) addFromAgent(file string, pub ssh.PublicKey) bool {
	if pub == nil {
		return false
	}
	found := false
	for _, k := range r.Agent.keys {
		if equal(plainKey(k.pub), pub) {
			r.add(file, k.slow(r.Hold))
			found = true
		}
	}
	return found
}

// AddAgent adds all that the agent holds.
func (r *Ring) AddAgent() {
	if r.Agent.err != nil {
		r.Locked = append(r.Locked, fmt.Sprintf("the agent's keys (%v)", r.Agent.err))
	}
	for _, k := range r.Agent.keys {
		r.append(k.name, k.slow(r.Hold))
	}
}

// AddCertificates adds certificates that lie elsewhere, each before the key
// that it is for.
func (r *Ring) AddCertificates(files []string) {
	for _, file := range files {
		for i, k := range r.Keys {
			signer, err := certify(file, k.Signer)
			if err == nil {
				r.Keys = append(r.Keys[:i:i], append([]Key{{file, signer}}, r.Keys[i:]...)...)
				break
			}
		}
	}
}

// add adds a file's key, after the certificate beside it.
func (r *Ring) add(file string, signer ssh.Signer) {
	certificate := file + "-cert.pub"
	if signer, err := certify(certificate, signer); err == nil {
		r.append(certificate, signer)
	} else if !os.IsNotExist(err) {
		r.lock(certificate, err)
	}
	r.append(file, signer)
}

func (r *Ring) append(name string, signer ssh.Signer) {
	for _, k := range r.Keys {
		if equal(k.Signer.PublicKey(), signer.PublicKey()) {
			return
		}
	}
	r.Keys = append(r.Keys, Key{name, signer})
}

func (r *Ring) lock(name string, err error) {
	r.Locked = append(r.Locked, fmt.Sprintf("%s (%v)", name, err))
}

// certify joins the certificate of a file with the key that it is for.
func certify(file string, signer ssh.Signer) (ssh.Signer, error) {
	pub, err := publicHalf(file)
	if err != nil {
		return nil, err
	}
	certificate, ok := pub.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("no certificate")
	}
	return ssh.NewCertSigner(certificate, signer)
}

// publicHalf reads a public key or a certificate.
func publicHalf(file string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return pub, err
}

func equal(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// plainKey returns the key that a certificate is about.
func plainKey(pub ssh.PublicKey) ssh.PublicKey {
	if c, ok := pub.(*ssh.Certificate); ok {
		return c.Key
	}
	return pub
}

// A slowSigner may have to wait for a person before it signs.
type slowSigner struct {
	pub  ssh.PublicKey
	hold func() (resume func())
	open func() (ssh.Signer, error)
}

var _ ssh.AlgorithmSigner = (*slowSigner)(nil)

func (s *slowSigner) PublicKey() ssh.PublicKey { return s.pub }

func (s *slowSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

func (s *slowSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	defer s.hold()()
	signer, err := s.open()
	if err != nil {
		return nil, err
	}
	if a, ok := signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return a.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// A Cache keeps decrypted keys for the run, so that nobody is asked twice. The
// zero value is ready for use.
type Cache struct {
	gates gate.Set
	mu    sync.Mutex
	keys  map[string]ssh.Signer
	errs  map[string]error
}

// Decrypter returns a function that decrypts key files and asks for their
// passphrases; nil when ask is.
func (k *Cache) Decrypter(
	ctx context.Context, ask func(ctx context.Context, keyFile string) (string, error),
) func(string, []byte) (ssh.Signer, error) {
	if ask == nil {
		return nil
	}
	return func(file string, text []byte) (ssh.Signer, error) {
		leave, err := k.gates.Enter(ctx, file, 1)
		if err != nil {
			return nil, err
		}
		defer leave()
		if signer, err := k.load(file); signer != nil || err != nil {
			return signer, err
		}
		signer, err := decrypt(text, func() (string, error) { return ask(ctx, file) })
		if err != nil {
			err = fmt.Errorf("decrypt %s: %w", file, err)
		}
		if ctx.Err() == nil { // what a cancelled question brought holds for nobody else
			k.store(file, signer, err)
		}
		return signer, err
	}
}

func (k *Cache) load(file string) (ssh.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[file], k.errs[file]
}

func (k *Cache) store(file string, signer ssh.Signer, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys, k.errs = make(map[string]ssh.Signer), make(map[string]error)
	}
	if err != nil {
		k.errs[file] = err
		return
	}
	k.keys[file] = signer
}

func decrypt(text []byte, ask func() (string, error)) (ssh.Signer, error) {
	for range passphraseTries {
		passphrase, err := ask()
		if err != nil {
			return nil, err
		}
		signer, err := ssh.ParsePrivateKeyWithPassphrase(text, []byte(passphrase))
		if !errors.Is(err, x509.IncorrectPasswordError) {
			return signer, err
		}
	}
	return nil, errors.New("the passphrase is wrong")
}

// An Agent is a connection to the operator's agent. It serves one login:
// an agent may restart at any time.
type Agent struct {
	conn net.Conn // nil: no agent
	stop func() bool
	keys []agentKey
	err  error // why there are no keys
}

// An agentKey is a key that an agent holds.
type agentKey struct {
	name   string
	pub    ssh.PublicKey // a key or a certificate
	signer ssh.Signer
}

// slow returns a signer that stops the clock: a security key waits for a
// finger.
func (k agentKey) slow(hold func() func()) ssh.Signer {
	return &slowSigner{k.pub, hold, func() (ssh.Signer, error) { return k.signer, nil }}
}

// OpenAgent connects to the agent at socket, or to none when that is empty.
// It is closed when ctx ends.
func OpenAgent(ctx context.Context, socket string) *Agent {
	a := new(Agent)
	if socket == "" {
		return a
	}
	if a.conn, a.err = new(net.Dialer).DialContext(ctx, "unix", socket); a.err != nil {
		return a
	}
	a.stop = context.AfterFunc(ctx, func() { _ = a.conn.Close() })
	client := agent.NewClient(a.conn)
	var signers []ssh.Signer
	if signers, a.err = client.Signers(); a.err != nil {
		return a
	}
	for _, s := range signers {
		name := "a key of the agent"
		if k, ok := s.PublicKey().(*agent.Key); ok && k.Comment != "" {
			name = k.Comment + " of the agent"
		}
		if pub, err := ssh.ParsePublicKey(s.PublicKey().Marshal()); err == nil {
			a.keys = append(a.keys, agentKey{name, pub, s})
		}
	}
	return a
}

// Close closes the connection. A nil Agent is closed.
func (a *Agent) Close() {
	if a != nil && a.conn != nil {
		a.stop()
		_ = a.conn.Close()
	}
}
