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

// Build builds the program of a folder in a module that requires teal and
// nothing else. Checkout is teal's own folder; dir, which must be empty or not
// there, becomes the module's. It returns the program's path, teal-runtime- and
// the name of the folder.
func Build(ctx context.Context, checkout, folder, dir string) (string, error) {
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(checkout, "go.sum"))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "teal-runtime-"+filepath.Base(folder))
	steps := [][]string{
		{"mod", "edit", "-require=github.com/teal-deploy/teal@v0.0.0", "-replace=github.com/teal-deploy/teal=" + checkout},
		{"build", "-o", program, "."},
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		steps = append([][]string{{"mod", "init", "example.com/runtime"}}, steps...)
	}
	for _, args := range steps {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %v: %w: %s", args, err, out)
		}
	}
	return program, nil
}
