package spec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What a secret may take.
const (
	secretDeadline = 30 * time.Second
	secretSize     = 1 << 20 // bytes
)

// Resolve returns the value of the secret. Relative files, and a relative
// program, start from dir, which is the folder of the app file; ~/ is the
// operator's home. One newline at the end of a file and of what a command
// prints is cut. A command is run without a shell and has 30 seconds.
//
// A source that is missing, or that gives nothing, is an error that names it.
// The value is in no error.
func (s Secret) Resolve(ctx context.Context, dir string) (string, error) {
	var value, source string
	var err error
	switch {
	case s.Env != "":
		source = "environment variable " + s.Env
		var ok bool
		if value, ok = os.LookupEnv(s.Env); !ok {
			err = errors.New("it is not set")
		}
	case s.File != "":
		source = fmt.Sprintf("file %q", s.File)
		value, err = readSecret(s.File, dir)
	case len(s.Command) > 0:
		source = fmt.Sprintf("command %q", s.Command[0])
		value, err = runSecret(ctx, s.Command, dir)
	default:
		return "", errors.New("secret: it has no source")
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("secret from %s: %w", source, err)
	case value == "":
		return "", fmt.Errorf("secret from %s: it is empty", source)
	case strings.ContainsRune(value, 0):
		return "", fmt.Errorf("secret from %s: it holds a NUL character", source)
	}
	return value, nil
}

func readSecret(name, dir string) (string, error) {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		name = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return "", err
	case info.IsDir():
		return "", fmt.Errorf("%s is a folder", name)
	case info.Size() > secretSize:
		return "", fmt.Errorf("%s is larger than %d bytes", name, secretSize)
	}
	value, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return cutNewline(string(value)), nil
}

func runSecret(ctx context.Context, argv []string, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretDeadline)
	defer cancel()
	var stdout, stderr bounded
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // for a child that keeps the output open
	err := cmd.Run()
	value := cutNewline(stdout.String())
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("it did not end in time: %w", ctx.Err())
	case err == nil && stdout.over:
		err = fmt.Errorf("it printed more than %d bytes", secretSize)
	}
	if err == nil {
		return value, nil
	}
	said := strings.TrimSpace(stderr.String())
	if value != "" {
		said = strings.ReplaceAll(said, strings.TrimSpace(value), "[redacted]")
	}
	if said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return "", err
}

func cutNewline(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// bounded keeps the first bytes that are written to it, and drops the rest.
type bounded struct {
	buf  bytes.Buffer // not embedded: its ReadFrom would go past Write
	over bool
}

func (b *bounded) String() string { return b.buf.String() }

func (b *bounded) Write(p []byte) (int, error) {
	room := secretSize - b.buf.Len()
	b.over = b.over || len(p) > room
	b.buf.Write(p[:min(len(p), room)])
	return len(p), nil
}
