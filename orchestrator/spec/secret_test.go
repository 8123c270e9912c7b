package spec

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSecretsResolve(t *testing.T) {
	dir := t.TempDir()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("TEAL_TEST_SECRET", "from env\n")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "secret"), "line 1\nline 2\n\n", 0o600)
	write(filepath.Join(dir, "crlf"), "windows\r\n", 0o600)
	write(filepath.Join(home, "in-home"), "home", 0o600)
	write(filepath.Join(dir, "print"), "#!/bin/sh\nprintf '%s|' \"$@\"; cat secret\n", 0o700)
	tests := []struct {
		name   string
		secret Secret
		want   string
	}{
		{"the environment, as it is", Secret{Env: "TEAL_TEST_SECRET"}, "from env\n"},
		{"a file without its last newline", Secret{File: "secret"}, "line 1\nline 2\n"},
		{"a file that ends as on Windows", Secret{File: "crlf"}, "windows"},
		{"an absolute file", Secret{File: filepath.Join(dir, "secret")}, "line 1\nline 2\n"},
		{"a file of the home", Secret{File: "~/in-home"}, "home"},
		{"a command without its last newline", Secret{Command: []string{"echo", "a  b; $(c)"}}, "a  b; $(c)"},
		{"a command beside the app file, run there", Secret{Command: []string{"./print", "x y", "$HOME", ""}}, "x y|$HOME||line 1\nline 2\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.secret.Resolve(t.Context(), dir)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestSecretsThatDoNotResolveNameTheirSource(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TEAL_TEST_EMPTY", "")
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, secretSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nul"), []byte("hunter2\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := func(line string) Secret { return Secret{Command: []string{"sh", "-c", line}} }
	tests := []struct {
		name   string
		secret Secret
		want   []string
	}{
		{"no source", Secret{}, []string{"no source"}},
		{"a variable that is not set", Secret{Env: "TEAL_TEST_MISSING"}, []string{"TEAL_TEST_MISSING", "not set"}},
		{"a variable that is empty", Secret{Env: "TEAL_TEST_EMPTY"}, []string{"TEAL_TEST_EMPTY", "empty"}},
		{"a missing file", Secret{File: "missing"}, []string{"missing", "no such file"}},
		{"a folder", Secret{File: "."}, []string{"is a folder"}},
		{"a large file", Secret{File: "big"}, []string{"larger than"}},
		{"a NUL", Secret{File: "nul"}, []string{"NUL"}},
		{"a missing program", Secret{Command: []string{"teal-no-such-program"}}, []string{"teal-no-such-program", "not found"}},
		{"a program that fails", script("echo hunter2; echo no session >&2; exit 3"), []string{`"sh"`, "exit status 3", "no session"}},
		{"a program that says its secret", script("echo hunter2; echo got hunter2 >&2; exit 1"), []string{"got [redacted]"}},
		{"a program that says nothing", script("exit 0"), []string{"empty"}},
		{"a program that says too much", script("head -c 2000000 /dev/zero"), []string{"more than"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			value, err := test.secret.Resolve(t.Context(), dir)
			if err == nil || value != "" {
				t.Fatalf("got %q, %v", value, err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q holds the value", err)
			}
		})
	}
	if _, err := (Secret{File: "missing"}).Resolve(t.Context(), dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestASecretCommandEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	// The child of the shell keeps the output open.
	_, err := Secret{Command: []string{"sh", "-c", "sleep 20 & echo half; wait"}}.Resolve(ctx, t.TempDir())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}
