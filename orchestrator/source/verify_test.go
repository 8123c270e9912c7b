package source_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// trust makes git sign with a new key, and trusts it when asked to.
func trust(t *testing.T, r repo, trusted bool) {
	t.Helper()
	needs(t, "ssh-keygen")
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	signers := ""
	if trusted {
		signers = "a@example.com " + read(t, key+".pub")
	}
	if err := os.WriteFile(filepath.Join(dir, "signers"), []byte(signers), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(t, "config", "gpg.format", "ssh")
	r.run(t, "config", "user.signingKey", key)
	global := filepath.Join(dir, "gitconfig")
	t.Setenv("GIT_CONFIG_GLOBAL", global)
	r.run(t, "config", "--global", "gpg.ssh.allowedSignersFile", filepath.Join(dir, "signers"))
}

func TestFetchOfSignedCommits(t *testing.T) {
	for _, via := range vias {
		t.Run(via, func(t *testing.T) {
			r := newRepo(t)
			trust(t, r, true)
			r.run(t, "config", "commit.gpgSign", "true")
			signed := r.commit(t, map[string]string{"a": "signed"})
			r.run(t, "config", "commit.gpgSign", "false")
			plain := r.commit(t, map[string]string{"a": "plain"})
			s := open(t, spec.Code{Repository: string(r), Via: via, Signed: true})
			dir := t.TempDir()
			for _, release := range []string{"r1", "r2"} {
				if got := fetch(t, s, web1, dir, release, signed); got["a"] != "-rw-r--r-- signed" {
					t.Errorf("got %v", got)
				}
			}
			_, err := s.Fetch(t.Context(), web1, source.Request{Dir: dir, Release: "r3", Commit: plain})
			if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "is not signed by anybody you trust: it has no signature") {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "releases/r3")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("an unsigned tree was written: %v", err)
			}
			trust(t, r, false)
			other := open(t, spec.Code{Repository: string(r), Via: via, Signed: true})
			_, err = other.Fetch(t.Context(), web1, source.Request{Dir: dir, Release: "r4", Commit: signed})
			if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "is not signed by anybody you trust: Good \"git\" signature with") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A lyingHost shows another commit object than the one it has.
type lyingHost struct {
	plugins.Host
	object string
}

func (l lyingHost) Run(ctx context.Context, cmd *plugins.Command) error {
	out := cmd.Stdout
	cmd.Stdout = io.Discard
	err := l.Host.Run(ctx, cmd)
	if out != nil {
		_, _ = io.WriteString(out, l.object)
	}
	return err
}

func TestFetchDoesNotTrustTheHostAboutASignature(t *testing.T) {
	r := newRepo(t)
	trust(t, r, true)
	r.run(t, "config", "commit.gpgSign", "true")
	signed := r.commit(t, map[string]string{"a": "signed"})
	object := r.run(t, "cat-file", "commit", signed) + "\n"
	r.run(t, "config", "commit.gpgSign", "false")
	evil := r.commit(t, map[string]string{"a": "evil"})
	s := open(t, spec.Code{Repository: string(r), Signed: true})
	_, err := s.Fetch(t.Context(), lyingHost{web1, object}, source.Request{Dir: t.TempDir(), Release: "r1", Commit: evil})
	if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "was asked for, \""+signed+"\" came") {
		t.Errorf("got %v", err)
	}
}
