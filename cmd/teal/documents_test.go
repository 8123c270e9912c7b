package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/spec"
)

// root is the folder of the module, seen from this package.
const root = "../.."

// TestDocumentsAreValid reads every inventory and app file that the README and
// the examples show.
func TestDocumentsAreValid(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	apps, inventories := 0, 0
	for i, block := range strings.Split(string(readme), "```toml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		switch {
		case strings.Contains(text, "[groups."):
			inventories++
			if _, err := inventory.Parse("README.md", []byte(text)); err != nil {
				t.Errorf("block %d: %v", i+1, err)
			}
		case strings.HasPrefix(text, "app = "):
			apps++
			if _, err := spec.Parse("README.md", []byte(text), spec.Options{}); err != nil {
				t.Errorf("block %d: %v", i+1, err)
			}
		}
	}
	if apps == 0 || inventories == 0 {
		t.Errorf("the README shows %d app files and %d inventories", apps, inventories)
	}

	found, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.toml"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range found {
		if filepath.Base(path) == "inventory.toml" {
			_, err = inventory.Load(path)
		} else {
			_, err = spec.Load(path, spec.Options{})
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestReadmeCommandsExist finds what the README tells people to make.
func TestReadmeCommandsExist(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, goal := range []string{"demo", "build", "test"} {
		if !strings.Contains(string(readme), "make "+goal) {
			t.Errorf("the README does not mention make %s", goal)
		}
		if !strings.Contains(string(makefile), "\n"+goal+":") {
			t.Errorf("the Makefile has no goal %s", goal)
		}
	}
}
