package source

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// maxDepth is how deep submodules may lie in submodules.
const maxDepth = 8

// descend returns t and the trees of its submodules, brought into mirrors
// below modules. Submodules outside the app's subdir are left out.
func (s *Source) descend(ctx context.Context, on runner, t tree, modules string, above []string) ([]tree, error) {
	if len(above) > maxDepth {
		return nil, &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("submodules lie deeper than %d levels: %s", maxDepth, t.prefix)}
	}
	out, err := run(ctx, on, t.repository, modulesScript, t.mirror, t.commit)
	if err != nil && !strings.Contains(out, "\x00\x00") {
		return nil, err // a commit without .gitmodules prints its files and then fails
	}
	found, err := parseModules(out)
	if err != nil {
		return nil, &plugins.Error{Kind: plugins.Invalid, Err: err}
	}
	trees := []tree{t}
	for _, m := range found {
		m.path = join(t.prefix, m.path)
		if s.code.Subdir != "" && !strings.HasPrefix(m.path, s.code.Subdir+"/") {
			continue
		}
		repo, err := t.repository.join(m.address)
		if err != nil {
			return nil, &plugins.Error{Kind: plugins.Invalid, Err: err}
		}
		sub := tree{repository: repo, mirror: modules + "/" + mirrorName(repo), commit: m.commit, prefix: m.path}
		err = s.ask(ctx, on, repo, fetchScript, io.Discard, "", "", sub.mirror, repo.address, sub.commit, "")
		if err != nil {
			return nil, within("submodule "+m.path, err)
		}
		below, err := s.descend(ctx, on, sub, modules, append(slices.Clip(above), m.path))
		if err != nil {
			return nil, err
		}
		trees = append(trees, below...)
	}
	return trees, nil
}

// within adds a subject to err and keeps its kind.
func within(what string, err error) error {
	if inner, ok := err.(*plugins.Error); ok && inner.Op == "" { //nolint:errorlint // the outermost alone is replaced
		return &plugins.Error{Kind: inner.Kind, Err: fmt.Errorf("%s: %w", what, inner.Err)}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// A module is a submodule of a commit.
type module struct {
	path, address, commit string
}

// parseModules reads `git ls-tree -r -z`, a zero byte, and the zero-ended
// settings of .gitmodules. The order is that of the paths.
func parseModules(out string) ([]module, error) {
	files, config, _ := strings.Cut(out, "\x00\x00")
	paths, addresses := map[string]string{}, map[string]string{}
	for setting := range strings.SplitSeq(config, "\x00") {
		key, value, _ := strings.Cut(setting, "\n")
		name, isModule := strings.CutPrefix(key, "submodule.")
		if !isModule {
			continue
		}
		if name, ok := strings.CutSuffix(name, ".path"); ok {
			paths[value] = name
		} else if name, ok := strings.CutSuffix(name, ".url"); ok {
			addresses[name] = value
		}
	}
	var modules []module
	for entry := range strings.SplitSeq(files, "\x00") {
		meta, path, _ := strings.Cut(entry, "\t")
		fields := strings.Fields(meta)
		if len(fields) != 3 || fields[1] != "commit" {
			continue
		}
		address := addresses[paths[path]]
		if address == "" {
			return nil, fmt.Errorf("submodule %s has no url in .gitmodules", path)
		}
		if !filepath.IsLocal(path) {
			return nil, fmt.Errorf("submodule %q leaves the repository", path)
		}
		modules = append(modules, module{path: path, address: address, commit: fields[2]})
	}
	return modules, nil
}

func join(prefix, path string) string {
	if prefix == "" {
		return path
	}
	return prefix + "/" + path
}
