package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
)

func newPlugins(s Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugins",
		Short: "List, check, lock and begin runtimes of your own",
		Long: `Plugins are the runtimes that do not come with teal: programs that it starts
beside itself, and that reach a server only through the connection that teal
lends them. An app file names one with runtime, and may say more of it in
[plugins.NAME].

The first command that uses a plugin writes its version and its SHA-256 sum to
.teal/plugins.lock beside the app file. Later ones refuse another content until
somebody agrees to it with teal plugins lock. One that others than you and root
could change is never run.`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPluginsList(s), newPluginsCheck(s), newPluginsLock(s), newPluginsNew(s))
	return cmd
}

// bindProject adds the flags of a command that is about a project's plugins
// and connects to nothing.
func (o *options) bindProject(cmd *cobra.Command) {
	o.flags = cmd.Flags()
	under(cmd, headingWhere, func(f *pflag.FlagSet) {
		f.StringVarP(&o.file, "file", "f", spec.DefaultPath, "the app `file`; without one, its folder is this one")
		f.StringVarP(&o.env, "environment", "e", "", "an environment of the app file, such as `staging`")
	})
	under(cmd, headingCommon, func(f *pflag.FlagSet) {
		f.BoolVar(&o.json, "json", false, "print JSON, one object a line")
		f.BoolVarP(&o.verbose, "verbose", "v", false, "say on standard error what happens below")
	})
}

// A project is a folder with plugins and what its app file says of them.
type project struct {
	folder string
	file   *spec.File // nil: there is none
	app    spec.App
}

// project reads the app file. That there is none is wrong only when a flag
// needs it.
func (o *options) project() (project, error) {
	p := project{folder: filepath.Dir(o.file)}
	f, err := spec.Load(o.file, spec.Options{Environment: o.env, Set: o.set})
	switch {
	case err == nil:
		p.file, p.app = f, f.App()
	case !errors.Is(err, fs.ErrNotExist):
		return p, &orchestrator.UsageError{Err: err}
	case o.given("file"):
		return p, &orchestrator.UsageError{Err: fmt.Errorf("%s: there is no such app file", o.file)}
	case o.env != "":
		return p, &orchestrator.UsageError{Err: fmt.Errorf("--environment needs an app file, and there is no %s", o.file)}
	}
	return p, nil
}

// names are those of the plugins that the app file wants.
func (p project) names() []string {
	names := slices.Sorted(maps.Keys(p.app.Plugins))
	if wanted := p.app.Runtime; wanted != "" && !slices.Contains(spec.Builtins(), wanted) && !slices.Contains(names, wanted) {
		names = append(names, wanted)
	}
	return names
}

// find finds one plugin as a deployment would.
func (p project) find(name string) (loader.Found, error) {
	return loader.Find(name, whereIs(p.app.Plugins[name], p.folder))
}

// launch is how a plugin that was found is started.
func (p project) launch(found loader.Found) loader.Spec {
	launch := found.Spec()
	about := p.app.Plugins[found.Name]
	launch.Settings, launch.CallTimeout = about.Settings, about.Timeout
	return launch
}

// cause is why a plugin is not to be had, without its name, which is shown.
func cause(err error) error {
	if e, ok := errors.AsType[*plugins.Error](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}
