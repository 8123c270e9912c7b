// Package shop holds the app that the examples deploy: the code of its
// repository, the context of its image, and its teal.toml. The app's program
// is in the folder app.
package shop

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed code image teal.toml
var files embed.FS

// AppFile returns the shop's teal.toml for a registry ("address:port") and a
// code repository.
func AppFile(registry, repository string) (string, error) {
	b, err := files.ReadFile("teal.toml")
	if err != nil {
		return "", err
	}
	return strings.NewReplacer(
		"registry.example.com:5000", registry,
		"ssh://git@git.example.com/srv/git/shop.git", repository,
	).Replace(string(b)), nil
}

// WriteCode writes the content of the code repository into a folder, over what
// is there.
func WriteCode(dir string) error { return write("code", dir) }

// WriteImage writes all that an image is built of into a folder: the
// Dockerfile, the app, built for Linux by the go command, and the machine's
// static busybox. It must be called with the working directory inside the
// module.
func WriteImage(ctx context.Context, dir string) error {
	if err := write("image", dir); err != nil {
		return err
	}
	if err := BuildApp(ctx, filepath.Join(dir, "shop")); err != nil {
		return err
	}
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "busybox"), b, 0o755)
	}
	return errors.New("write the image: the machine has no busybox")
}

// BuildApp builds the app's program, static.
func BuildApp(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to,
		"github.com/teal-deploy/teal/examples/shop/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the shop: %w: %s", err, out)
	}
	return nil
}

func write(from, to string) error {
	return fs.WalkDir(files, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		path := filepath.Join(to, filepath.FromSlash(rel))
		if d.IsDir() {
			return os.MkdirAll(path, 0o755)
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o644)
	})
}
