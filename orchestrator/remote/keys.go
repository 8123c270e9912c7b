package remote

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
)

// passphraseTries is how often the operator may mistype.
const passphraseTries = 3

// A key is a signer with the name that a person knows it by.
type key struct {
	name   string
	signer ssh.Signer
}

// A keyring collects keys to be offered, in order, each once.
type keyring struct {
	agent   *agentConn
	hold    func() (resume func())                             // stops a clock while somebody is asked
	decrypt func(file string, text []byte) (ssh.Signer, error) // nil: nobody can be asked

	keys   []key
	locked []string // what cannot be offered, and why
}

// addFile adds the key of a file with its certificate. The agent goes first:
// it spares the passphrase. given says that a missing file is no default.
func (r *keyring) addFile(file string, given bool) {
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
	case r.decrypt == nil:
		r.lock(file, errors.New("encrypted, and the agent does not hold it"))
	case pub != nil:
		// The passphrase is asked for once the host has said that it would
		// take this key.
		r.add(file, &slowSigner{pub, r.hold, func() (ssh.Signer, error) { return r.decrypt(file, text) }})
	default:
		resume := r.hold()
		signer, err := r.decrypt(file, text)
		resume()
		if err != nil {
			r.lock(file, err)
			return
		}
		r.add(file, signer)
	}
}

// addFromAgent adds what the agent holds for pub: the key and certificates.
func (r *keyring) addFromAgent(file string, pub ssh.PublicKey) bool {
	if pub == nil {
		return false
	}
	found := false
	for _, k := range r.agent.keys {
		if equal(plainKey(k.pub), pub) {
			r.add(file, k.slow(r.hold))
			found = true
		}
	}
	return found
}

// addAgent adds all that the agent holds.
func (r *keyring) addAgent() {
	if r.agent.err != nil {
		r.locked = append(r.locked, fmt.Sprintf("the agent's keys (%v)", r.agent.err))
	}
	for _, k := range r.agent.keys {
		r.append(k.name, k.slow(r.hold))
	}
}

// addCertificates adds certificates that lie elsewhere, each before the key
// that it is for.
func (r *keyring) addCertificates(files []string) {
	for _, file := range files {
		for i, k := range r.keys {
			signer, err := certify(file, k.signer)
			if err == nil {
				r.keys = append(r.keys[:i:i], append([]key{{file, signer}}, r.keys[i:]...)...)
				break
			}
		}
	}
}

// add adds a file's key, after the certificate beside it.
func (r *keyring) add(file string, signer ssh.Signer) {
	certificate := file + "-cert.pub"
	if signer, err := certify(certificate, signer); err == nil {
		r.append(certificate, signer)
	} else if !os.IsNotExist(err) {
		r.lock(certificate, err)
	}
	r.append(file, signer)
}

func (r *keyring) append(name string, signer ssh.Signer) {
	for _, k := range r.keys {
		if equal(k.signer.PublicKey(), signer.PublicKey()) {
			return
		}
	}
	r.keys = append(r.keys, key{name, signer})
}

func (r *keyring) lock(name string, err error) {
	r.locked = append(r.locked, fmt.Sprintf("%s (%v)", name, err))
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

// keyCache keeps decrypted keys for the run, so that nobody is asked twice.
type keyCache struct {
	gates gates
	mu    sync.Mutex
	keys  map[string]ssh.Signer
	errs  map[string]error
}

// decrypter returns a function that decrypts key files, nil when there is
// nobody to ask.
func (d *Dialer) decrypter(ctx context.Context) func(string, []byte) (ssh.Signer, error) {
	if d.Passphrase == nil {
		return nil
	}
	return func(file string, text []byte) (ssh.Signer, error) {
		leave, err := d.keys.gates.enter(ctx, file, 1)
		if err != nil {
			return nil, err
		}
		defer leave()
		if signer, err := d.keys.load(file); signer != nil || err != nil {
			return signer, err
		}
		signer, err := decrypt(text, func() (string, error) { return d.Passphrase(ctx, file) })
		if err != nil {
			err = fmt.Errorf("decrypt %s: %w", file, err)
		}
		if ctx.Err() == nil { // what a cancelled question brought holds for nobody else
			d.keys.store(file, signer, err)
		}
		return signer, err
	}
}

func (k *keyCache) load(file string) (ssh.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[file], k.errs[file]
}

func (k *keyCache) store(file string, signer ssh.Signer, err error) {
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

// An agentConn is a connection to the operator's agent. It serves one login:
// an agent may restart at any time.
type agentConn struct {
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

// openAgent connects to the agent at socket, or to none when that is empty.
// It is closed when ctx ends.
func openAgent(ctx context.Context, socket string) *agentConn {
	a := new(agentConn)
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

func (a *agentConn) close() {
	if a != nil && a.conn != nil {
		a.stop()
		_ = a.conn.Close()
	}
}
