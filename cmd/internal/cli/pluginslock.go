package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/inventory/tomlfile"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins/loader"
)

func newPluginsLock(s Streams) *cobra.Command {
	o := &options{streams: s}
	cmd := &cobra.Command{
		Use:   "lock name...",
		Short: "Agree to the content that plugins have now",
		Long: `Lock writes the version and the SHA-256 sum of plugins to .teal/plugins.lock
beside the app file, in the place of what it had of them. Every other command
refuses a plugin that differs from it. The first command that uses a plugin writes
the file as well; keep it with the app file in version control, and look at what
has changed before you lock it again.

A plugin whose sha256 stands in the app file is locked there.`,
		Example: `  teal plugins lock process`,
		Args: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				return errors.New("name the plugins")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, names []string) error { return o.lockPlugins(cmd.Context(), names) },
	}
	o.bindProject(cmd)
	return cmd
}

// A relock is a plugin whose entry in the lock file is to be written.
type relock struct {
	found   loader.Found
	before  loader.Lock // zero: the file does not name it
	version string
}

// lockPlugins looks at all plugins before it agrees to any.
func (o *options) lockPlugins(ctx context.Context, names []string) error {
	p, err := o.project()
	if err != nil {
		return err
	}
	locks, err := loader.Locks(p.folder)
	if err != nil {
		return &orchestrator.UsageError{Err: err}
	}
	var all []relock
	for _, name := range names {
		r, err := o.relock(ctx, p, name)
		if err != nil {
			return &orchestrator.UsageError{Err: err}
		}
		if i := slices.IndexFunc(locks, func(l loader.Lock) bool { return l.Name == name }); i >= 0 {
			r.before = locks[i]
		}
		all = append(all, r)
	}
	for _, r := range all {
		if err := loader.Accept(p.folder, r.found, r.version); err != nil {
			return err
		}
		if err := o.showLock(p, r); err != nil {
			return err
		}
	}
	return nil
}

// relock finds a plugin, whatever the lock file says of it, and asks for its
// version.
func (o *options) relock(ctx context.Context, p project, name string) (relock, error) {
	about := p.app.Plugins[name]
	switch {
	case slices.Contains(spec.Builtins(), name):
		return relock{}, fmt.Errorf("%s is built in: there is nothing to lock", name)
	case about.SHA256 != "":
		return relock{}, p.file.Problem(tomlfile.Join("plugins", name)+".sha256", "the plugin is locked here, and not in "+loader.LockPath(p.folder), "")
	}
	where := whereIs(about, p.folder)
	where.Changed = true
	found, err := loader.Find(name, where)
	if err != nil {
		return relock{}, err
	}
	launch := p.launch(found)
	launch.Log = o.logger()
	plugin, err := loader.Start(ctx, launch)
	if err != nil {
		return relock{}, err
	}
	return relock{found: found, version: plugin.Version()}, plugin.Close()
}

func (o *options) showLock(p project, r relock) error {
	now := loader.Lock{Name: r.found.Name, Version: r.version, SHA256: r.found.SHA256}
	if o.json {
		row := map[string]any{"schema": 1, "name": now.Name, "version": now.Version, "sha256": now.SHA256}
		if r.before != (loader.Lock{}) {
			row["before"] = r.before
		}
		return json.NewEncoder(o.streams.Out).Encode(row)
	}
	text := ""
	switch r.before {
	case loader.Lock{}:
		text = fmt.Sprintf("%s: locked at %s in %s\n", now.Name, now, loader.LockPath(p.folder))
	case now:
		text = fmt.Sprintf("%s: is locked at %s already\n", now.Name, now)
	default:
		text = fmt.Sprintf("%s: locked at %s, before at %s, in %s\n", now.Name, now, r.before, loader.LockPath(p.folder))
	}
	return display.Text(o.streams.Out, text)
}
