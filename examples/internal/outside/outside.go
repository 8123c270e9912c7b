// Package outside builds programs of the examples as their authors would:
// each in a module of its own, outside of teal's.
package outside

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the program of a folder in a Module and returns the program's
// path, teal-runtime- and the name of the folder.
func Build(ctx context.Context, checkout, folder, dir string) (string, error) {
	if err := Module(ctx, checkout, folder, dir); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "teal-runtime-"+filepath.Base(folder))
	_, err := Go(ctx, dir, "build", "-o", program, ".")
	return program, err
}

// Module makes a module that requires teal, and nothing else but what a go.mod
// in folder says. Checkout is teal's own folder; dir, which must be empty or not
// there, becomes the module's.
func Module(ctx context.Context, checkout, folder, dir string) error {
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(checkout, "go.sum"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		if _, err := Go(ctx, dir, "mod", "init", "example.com/runtime"); err != nil {
			return err
		}
	}
	_, err = Go(ctx, dir, "mod", "edit", "-require=github.com/teal-deploy/teal@v0.0.0", "-replace=github.com/teal-deploy/teal="+checkout)
	return err
}

// Go runs the go command in a Module and returns what it printed. It builds as
// make does, so that what teal requires is not compiled again.
func Go(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -trimpath", "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go %v: %w: %s", args, err, out)
	}
	return string(out), err
}
