package keys

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func noHold() func() { return func() {} }

// writeKey writes a key and its public half.
func writeKey(t *testing.T, file string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return signer
}

// writeCertificate writes one for a key, signed by itself.
func writeCertificate(t *testing.T, file string, key, authority ssh.Signer) {
	t.Helper()
	c := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(c), 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(r *Ring) []string {
	var all []string
	for _, k := range r.Keys {
		all = append(all, filepath.Base(k.Name)+" "+k.Signer.PublicKey().Type())
	}
	return all
}

func TestRingOffersCertificatesBeforeTheirKeysAndEachKeyOnce(t *testing.T) {
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	first, second := writeKey(t, file("first")), writeKey(t, file("second"))
	writeCertificate(t, file("first-cert.pub"), first, second)
	writeCertificate(t, file("elsewhere"), second, first)
	if err := os.WriteFile(file("broken-cert.pub"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeKey(t, file("broken"))
	if err := os.WriteFile(file("no key"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Ring{Agent: new(Agent), Hold: noHold}
	for _, name := range []string{"second", "first", "second", "missing", "broken", "no key"} {
		r.AddFile(file(name), false)
	}
	r.AddCertificates([]string{file("elsewhere"), file("none")})
	want := []string{
		"elsewhere " + ssh.CertAlgoED25519v01, "second ssh-ed25519",
		"first-cert.pub " + ssh.CertAlgoED25519v01, "first ssh-ed25519", "broken ssh-ed25519",
	}
	if diff := cmp.Diff(want, names(r)); diff != "" {
		t.Error(diff)
	}
	wantLocked := []string{
		file("broken-cert.pub") + " (ssh: no key found)", file("no key") + " (ssh: no key found)",
	}
	if diff := cmp.Diff(wantLocked, r.Locked); diff != "" {
		t.Error(diff)
	}
}

func TestCacheAsksOneAtATimeAndNotAgainAfterACancelledQuestion(t *testing.T) {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(block)
	var cache Cache
	ctx, cancel := context.WithCancel(t.Context())
	decrypt := cache.Decrypter(ctx, func(ctx context.Context, _ string) (string, error) {
		cancel()
		return "", context.Cause(ctx)
	})
	if _, err := decrypt("key", text); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	asked := 0
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			decrypt := cache.Decrypter(t.Context(), func(context.Context, string) (string, error) {
				asked++ // the race detector sees two at a time
				return "open", nil
			})
			if signer, err := decrypt("key", text); err != nil || signer == nil {
				t.Errorf("%v, %v", signer, err)
			}
		})
	}
	all.Wait()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if cache.Decrypter(t.Context(), nil) != nil {
		t.Error("it decrypts with nobody to ask")
	}
}

func TestLentKeysAreListedAndSignAndNothingElse(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaSigner, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	lent := Lent{{"rsa", rsaSigner}, {"ed", writeKey(t, filepath.Join(t.TempDir(), "ed"))}}
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- lent.Serve(far) }()
	client := agent.NewClient(near)

	listed, err := client.List()
	if err != nil || len(listed) != 2 || listed[0].Comment != "rsa" || listed[1].Comment != "ed" {
		t.Errorf("%v, %v", listed, err)
	}
	signers, err := client.Signers()
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("data")
	for i, algorithms := range [][]string{{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}, {ssh.KeyAlgoED25519}} {
		for _, algorithm := range algorithms {
			signature, err := signers[i].(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, data, algorithm)
			if err != nil || signature.Format != algorithm {
				t.Fatalf("%s: %v, %v", algorithm, signature, err)
			}
			if err := lent[i].Signer.PublicKey().Verify(data, signature); err != nil {
				t.Error(err)
			}
		}
	}
	stranger := writeKey(t, filepath.Join(t.TempDir(), "stranger"))
	if _, err := client.Sign(stranger.PublicKey(), data); err == nil {
		t.Error("it signs with a key that it does not have")
	}
	for name, err := range map[string]error{
		"RemoveAll": client.RemoveAll(), "Lock": client.Lock([]byte("x")), "Remove": client.Remove(rsaSigner.PublicKey()),
		"Add": client.Add(agent.AddedKey{PrivateKey: private}),
	} {
		if err == nil {
			t.Errorf("%s is allowed", name)
		}
	}
	_ = near.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("Serve: %v", err)
	}
}

func TestLentKeysRefuseQuestionsThatMakeNoSense(t *testing.T) {
	frame := func(text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
	}
	failure := frame("\x05")
	for name, tt := range map[string]struct{ question, answer string }{
		"empty":      {frame(""), ""},
		"too long":   {"\xff\xff\xff\xff", ""},
		"cut off":    {"\x00\x00\x00\x05ab", ""},
		"unknown":    {frame("\x7f"), failure},
		"bad sign":   {frame("\x0d\x00\x00"), failure},
		"none twice": {frame("\x0b") + frame("\x0b"), frame("\x0c\x00\x00\x00\x00") + frame("\x0c\x00\x00\x00\x00")},
	} {
		var answer bytes.Buffer
		err := Lent(nil).Serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader([]byte(tt.question)), &answer})
		if err == nil || answer.String() != tt.answer {
			t.Errorf("%s: %q, %v", name, answer.String(), err)
		}
	}
}
