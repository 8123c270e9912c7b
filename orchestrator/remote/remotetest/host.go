// Package remotetest is a host on loopback for tests that need SSH: a server in
// the test's own process whose commands run in local shells, with knobs for
// the faults that a network and an sshd have.
//
// It behaves as OpenSSH does where that matters to a client: a command leads a
// session of its own, lives on when its channel is closed, and is refused
// above MaxSessions; one agent socket serves a whole connection. What only the
// real thing shows (PAM, sudo, the kernel's timing) is for a real sshd.
package remotetest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/teal-deploy/teal/inventory"
)

// Options are what a host is like. The zero value is a healthy host with one
// key that may log in.
type Options struct {
	Shell       []string          // the login shell, called with -c and a line; nil: /bin/sh
	Dir         string            // where commands run; "": a fresh folder
	Env         map[string]string // added to the environment of commands
	MaxSessions int               // open at a time on a connection; 0: 10
	Delay       time.Duration     // added to everything that the host sends
	Password    string            // "": only keys may log in
	Interactive bool              // the password is asked for by keyboard-interactive only

	RefuseForwarding bool // no direct-tcpip, no direct-streamlocal
	RefuseAgent      bool // no agent forwarding
	RefuseSFTP       bool // no subsystem
	RefuseKeys       bool // no key may log in
}

// A Host is an SSH server on loopback.
type Host struct {
	options  Options
	listener net.Listener
	config   *ssh.ServerConfig
	keyFile  string
	known    string
	hostKey  ssh.PublicKey
	wait     sync.WaitGroup

	drop     atomic.Int64 // connections that are dropped before they say a word
	mute     atomic.Bool
	total    atomic.Int64
	shaking  atomic.Int64
	mostOpen atomic.Int64

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Start starts a host that ends with the test.
func Start(t testing.TB, o Options) *Host {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if len(o.Shell) == 0 {
		o.Shell = []string{"/bin/sh"}
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 10
	}
	h := &Host{options: o, conns: make(map[*conn]struct{})}
	folder := t.TempDir()
	h.keyFile = filepath.Join(folder, "id_ed25519")
	clientKey := WriteKey(t, h.keyFile, "")
	private, err := os.ReadFile(h.keyFileFor(t, folder))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	h.hostKey = signer.PublicKey()
	h.config = h.serverConfig(clientKey, signer)
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	h.known = filepath.Join(folder, "known_hosts")
	line := knownhosts.Line([]string{h.Addr()}, h.hostKey)
	if err := os.WriteFile(h.known, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.wait.Go(h.accept)
	t.Cleanup(func() {
		_ = h.listener.Close()
		h.Kill()
		h.wait.Wait()
	})
	return h
}

// keyFileFor makes the key of the host itself.
func (h *Host) keyFileFor(t testing.TB, folder string) string {
	file := filepath.Join(folder, "host_key")
	WriteKey(t, file, "")
	return file
}

// WriteKey writes a new private key to file, encrypted when there is a
// passphrase, and its public half beside it.
func WriteKey(t testing.TB, file, passphrase string) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey()
}

// Inventory returns the host as an inventory has it: address, port, user, key
// file and known_hosts, all that a login needs.
func (h *Host) Inventory(name string) inventory.Host {
	return inventory.Host{Name: name, Address: "127.0.0.1", SSH: inventory.SSH{
		User: "deploy", Port: h.Port(), Identity: []string{h.keyFile}, KnownHosts: []string{h.known},
	}}
}

// Addr is where the host listens.
func (h *Host) Addr() string { return h.listener.Addr().String() }

// Port is the number in Addr.
func (h *Host) Port() uint16 {
	_, port, _ := net.SplitHostPort(h.Addr())
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

// HostKey is what the host shows.
func (h *Host) HostKey() ssh.PublicKey { return h.hostKey }

// Drop makes the host hang up on the next n connections, as sshd does above
// MaxStartups.
func (h *Host) Drop(n int) { h.drop.Store(int64(n)) }

// Mute makes the host go silent, as when a cable is cut: connections stay open,
// nothing is read or sent any more.
func (h *Host) Mute() { h.mute.Store(true) }

// Unmute ends Mute for connections that are still there.
func (h *Host) Unmute() { h.mute.Store(false) }

// Kill closes all connections at once, without a word.
func (h *Host) Kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		_ = c.net.Close()
	}
}

// Connections returns how many connections there have been, and how many are
// open.
func (h *Host) Connections() (total, open int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int(h.total.Load()), len(h.conns)
}

// MostHandshakes returns how many connections have been before their login at
// the same time, at most.
func (h *Host) MostHandshakes() int { return int(h.mostOpen.Load()) }
