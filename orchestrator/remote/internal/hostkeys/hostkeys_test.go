package hostkeys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/teal-deploy/teal/plugins"
)

func newKey(t *testing.T, private any) ssh.PublicKey {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey()
}

func edKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newKey(t, private)
}

func ecKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newKey(t, private)
}

// policy returns one for a host of which files with these lines are known.
func policy(t *testing.T, name string, lines ...string) *Policy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Policy{Known: new(Known), Files: []string{file}, Name: name, Warn: func(string, ...any) {}}
}

func check(p *Policy, key ssh.PublicKey) error { return p.Check("", &net.TCPAddr{}, key) }

func TestCheckFindsTheHostAsOpenSSHDoes(t *testing.T) {
	key := edKey(t)
	line := func(name string) string {
		return name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	}
	tests := map[string]struct {
		line, name string
		known      bool
	}{
		"plain":                  {line("web1"), "web1:22", true},
		"another host":           {line("web1"), "web2:22", false},
		"with a port":            {line("[web1]:2222"), "web1:2222", true},
		"another port":           {line("[web1]:2222"), "web1:22", false},
		"a list":                 {line("lb,web1,10.0.0.1"), "10.0.0.1:22", true},
		"a wildcard on any port": {line("web*"), "web7:2222", true},
		"a negation":             {line("web*,!web7"), "web7:22", false},
		"a hash":                 {line(knownhosts.HashHostname("web1")), "web1:22", true},
		"a hash with a port":     {line(knownhosts.HashHostname("[web1]:2222")), "web1:2222", true},
		"an address of IPv6":     {line("::1"), "[::1]:22", true},
		"a comment":              {"# " + line("web1"), "web1:22", false},
	}
	for name, tt := range tests {
		err := check(policy(t, tt.name, tt.line), key)
		if tt.known != (err == nil) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && !errors.Is(err, plugins.Denied) {
			t.Errorf("%s: %v is not of kind Denied", name, err)
		}
	}
}

func TestAlgorithmsBeginWithWhatIsKnown(t *testing.T) {
	ed, ec := edKey(t), ecKey(t)
	text := func(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }
	p := policy(t, "web1:22", "web1 "+text(ec), "web2 "+text(ed), "@cert-authority *.example.com "+text(ed))
	for name, want := range map[string][]string{
		"web1:22":           {ssh.KeyAlgoECDSA256},
		"web2:22":           {ssh.KeyAlgoED25519},
		"web3:22":           nil,
		"lb.example.com:22": {ssh.CertAlgoED25519v01},
	} {
		p.Name = name
		got, err := p.Algorithms()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got[:len(want)], cmp.Transformer("", func(s []string) string { return fmt.Sprint(s) })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for _, a := range got[len(want):] {
			if strings.Contains(a, "-cert-") {
				t.Errorf("%s: asks for %s without an authority", name, a)
			}
		}
	}
}

func TestKeyThatWasAddedMeanwhileIsSeen(t *testing.T) {
	key := edKey(t)
	p := policy(t, "web1:22")
	if err := check(p, key); err == nil {
		t.Fatal("it is known already")
	}
	if err := appendLine(p.Files[0], knownhosts.Line([]string{"web1"}, key)); err != nil {
		t.Fatal(err)
	}
	if err := check(p, key); err != nil {
		t.Error(err)
	}
}

func TestFilesThatCannotBeUsedAreNamed(t *testing.T) {
	key := edKey(t)
	folder := t.TempDir()
	p := &Policy{Known: new(Known), Files: []string{folder}, Name: "web1:22", Warn: func(string, ...any) {}}
	if err := check(p, key); !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), folder) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := p.Algorithms(); !errors.Is(err, plugins.Invalid) {
		t.Errorf("a folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Files, p.AcceptNew = []string{filepath.Join(folder, "new", "known_hosts")}, true
	if err := os.WriteFile(filepath.Join(folder, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(p, key); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("a file in place of the folder: %v", err)
	}
	p.Files = nil
	if err := check(p, key); !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "~/.ssh/known_hosts") {
		t.Errorf("no files: %v", err)
	}
}
