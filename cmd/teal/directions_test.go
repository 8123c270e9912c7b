package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/teal-deploy/teal"

// directions says what a folder may import of ours besides itself. The first
// folder that matches counts; paths match whole or as a parent.
var directions = []struct {
	folder string
	may    []string
}{
	{"cmd", []string{"inventory", "orchestrator", "plugins", "examples/runtimes"}}, // the examples are the skeletons
	{"inventory/tomlfile", nil},
	{"inventory", []string{"inventory/tomlfile"}},
	{"orchestrator/spec", []string{"inventory"}},
	{"orchestrator/image", []string{"plugins"}},
	{"orchestrator/remote", []string{"inventory", "plugins"}},
	{"orchestrator/proxy", []string{"plugins"}},
	{"orchestrator/health", []string{"orchestrator/spec", "plugins"}},
	{"orchestrator/source", []string{"orchestrator/spec", "plugins"}},
	{"orchestrator/record", []string{"orchestrator/spec", "orchestrator/proxy", "plugins"}},
	{"orchestrator", []string{"inventory", "plugins"}},
	{"plugins/docker", []string{"plugins", "plugins/internal/engine"}},
	{"plugins/podman", []string{"plugins", "plugins/internal/engine"}},
	{"plugins/internal/wire", []string{"plugins", "plugins/internal/duplex"}},
	{"plugins/internal/fault", nil},
	{"plugins/internal", []string{"plugins"}},
	{"plugins/sdk", []string{"plugins", "plugins/internal/wire"}},
	{"plugins/loader", []string{"plugins", "plugins/internal/wire"}},
	{"plugins/plugintest", []string{"plugins"}},
	{"plugins", nil},
	{"examples", []string{"plugins", "plugins/sdk"}},
}

// owners says which folders may import a third-party module. One that is not
// named here may be imported by nobody.
var owners = []struct {
	imports string
	folders []string
}{
	{"github.com/hashicorp/go-plugin", []string{"plugins/internal/wire", "plugins/sdk", "plugins/loader"}},
	{"github.com/hashicorp/go-hclog", []string{"plugins/sdk", "plugins/loader"}},
	{"google.golang.org/grpc", []string{"plugins/internal/wire", "plugins/sdk", "plugins/loader", "examples"}},
	{"google.golang.org/protobuf", []string{"plugins/internal/wire", "plugins/sdk", "plugins/loader", "examples/internal/counter"}},
	{"golang.org/x/crypto/ssh", []string{"orchestrator/remote"}},
	{"github.com/pkg/sftp", []string{"orchestrator/remote"}},
	{"github.com/skeema/knownhosts", []string{"orchestrator/remote"}},
	{"github.com/kevinburke/ssh_config", []string{"orchestrator/remote"}},
	{"github.com/moby/moby", []string{"plugins/internal/engine", "plugins/docker"}},
	{"github.com/distribution/reference", []string{"plugins/internal/engine"}},
	{"github.com/containerd/errdefs", []string{"plugins/internal/engine"}},
	{"github.com/google/go-containerregistry", []string{"orchestrator/image"}},
	{"github.com/BurntSushi/toml", []string{"inventory", "orchestrator/spec"}},
	{"github.com/spf13/cobra", []string{"cmd/internal/cli"}},
	{"github.com/spf13/pflag", []string{"cmd/internal/cli"}},
	{"charm.land", []string{"cmd/internal/display"}},
	{"github.com/vbauerster/mpb", []string{"cmd/internal/display"}},
	{"github.com/charmbracelet", []string{"cmd/internal/display"}},
	{"github.com/mattn/go-runewidth", []string{"cmd/internal/display"}},
	{"golang.org/x/term", []string{"cmd"}},
	{"golang.org/x/sync", []string{"orchestrator", "plugins", "examples"}},
	{"golang.org/x/sys", []string{"orchestrator/remote", "plugins/loader", "plugins/internal/engine", "examples"}},
	{"golang.org/x/net", []string{"examples"}},
	{"github.com/cenkalti/backoff", []string{"orchestrator"}},
}

type goPackage struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Standard,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func TestImportDirections(t *testing.T) {
	for _, p := range listPackages(t) {
		folder := strings.TrimPrefix(p.ImportPath, module+"/")
		i := slices.IndexFunc(directions, func(d struct {
			folder string
			may    []string
		},
		) bool {
			return within(folder, d.folder)
		})
		if i < 0 {
			t.Errorf("%s stands in no room of the house: add it to the table, with what it may import", folder)
			continue
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
				d := directions[i]
				if !within(ours, d.folder) && !slices.ContainsFunc(d.may, func(m string) bool { return within(ours, m) }) {
					t.Errorf("%s imports %s; it may import %v", folder, ours, d.may)
				}
				continue
			}
			checkOwner(t, folder, imported)
		}
	}
}

func checkOwner(t *testing.T, folder, imported string) {
	t.Helper()
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return // the standard library
	}
	for _, o := range owners {
		if within(imported, o.imports) || strings.HasPrefix(imported, o.imports+"/") {
			if !slices.ContainsFunc(o.folders, func(f string) bool { return within(folder, f) }) {
				t.Errorf("%s imports %s, which belongs to %v", folder, imported, o.folders)
			}
			return
		}
	}
	t.Errorf("%s imports %s, which no folder owns", folder, imported)
}

func TestContractNeedsTheStandardLibraryOnly(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/plugins")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != module+"/plugins" {
		t.Errorf("the contract brings along:\n%s", got)
	}
}
