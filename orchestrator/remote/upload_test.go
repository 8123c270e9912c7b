package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

func TestUploadReplacesAFileInOneStep(t *testing.T) {
	for name, h := range map[string]inventory.Host{
		"sftp without fsync": remotetest.Start(t, remotetest.Options{}).Inventory("web1"),
		"by shell":           remotetest.Start(t, remotetest.Options{RefuseSFTP: true}).Inventory("web1"),
		"sshd":               startSSHD(t).Host,
		"sshd by shell":      startSSHD(t, "Subsystem other false").Host,
	} {
		t.Run(name, func(t *testing.T) { testUpload(t, dial(t, testDialer(t), h)) })
	}
}

func testUpload(t *testing.T, c *remote.Conn) {
	folder := t.TempDir()
	target := filepath.Join(folder, "it's a $file")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, tt := range []struct {
		text []byte
		mode fs.FileMode
	}{{[]byte("first"), 0o600}, {nil, 0o644}, {big, 0o755}} {
		if err := c.Upload(t.Context(), target, bytes.NewReader(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(target)
		if err != nil || !bytes.Equal(got, tt.text) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		info, err := os.Stat(target)
		if err != nil || info.Mode() != tt.mode {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}

	before, _ := os.ReadFile(target)
	broken := errors.New("broken reader")
	if err := c.Upload(t.Context(), target, iotestErr{broken}, 0o600); !errors.Is(err, broken) {
		t.Errorf("broken reader: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Upload(ctx, target, strings.NewReader("new"), 0o600); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if after, _ := os.ReadFile(target); !bytes.Equal(before, after) {
		t.Error("an upload that failed changed the file")
	}
	for path, kind := range map[string]plugins.Kind{
		filepath.Join(folder, "no", "folder"): plugins.NotFound,
		"relative":                            plugins.Invalid,
	} {
		if err := c.Upload(t.Context(), path, strings.NewReader("x"), 0o600); !errors.Is(err, kind) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := c.Upload(t.Context(), target, strings.NewReader("x"), fs.ModeSetuid|0o755); !errors.Is(err, plugins.Invalid) {
		t.Errorf("setuid: %v", err)
	}
	if err := os.Mkdir(filepath.Join(folder, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Upload(t.Context(), filepath.Join(folder, "folder"), strings.NewReader("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	within(t, 2*time.Second, "rid of temporary files", func() bool {
		names, _ := filepath.Glob(filepath.Join(folder, "*teal-*"))
		return len(names) == 0
	})
}

func TestUploadIsLostWithTheConnection(t *testing.T) {
	for name, lines := range map[string]string{"sftp": "", "by shell": "Subsystem other false"} {
		t.Run(name, func(t *testing.T) {
			cable, h := lay(t, startSSHD(t, lines).Host)
			c := dial(t, testDialer(t), h)
			target := filepath.Join(t.TempDir(), "file")
			if err := c.Upload(t.Context(), target, strings.NewReader("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := c.Upload(t.Context(), target, cutter{cable}, 0o600)
			if !errors.Is(err, plugins.Lost) {
				t.Errorf("got %v", err)
			}
			if text, _ := os.ReadFile(target); string(text) != "old" {
				t.Errorf("the file is %q", text)
			}
		})
	}
}

// A cutter is a reader in the middle of which the connection dies.
type cutter struct{ cable *cable }

func (c cutter) Read(p []byte) (int, error) {
	c.cable.cut()
	return copy(p, "new"), nil
}
