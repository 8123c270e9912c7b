package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins/loader"
)

const (
	// answerTime bounds how long each plugin of a list may take to answer.
	answerTime = 5 * time.Second
	// answersAtOnce bounds how many are asked at the same time.
	answersAtOnce = 8
)

func newPluginsList(s Streams) *cobra.Command {
	o := &options{streams: s}
	cmd := &cobra.Command{
		Use:   "list [name...]",
		Short: "Show which runtimes there are, from where, and what they can do",
		Long: `List shows the built-in runtimes and all plugins: those that the app file names,
then those in .teal/plugins beside it, in ~/.local/share/teal/plugins and in
/usr/local/lib/teal/plugins, where the first of a name wins. PATH is not looked
at. Each plugin is started to ask for its version and its abilities, and has five
seconds to answer.

LOCK says whether a plugin's content is agreed upon: by the app file (sha256) or
by the lock file .teal/plugins.lock; new is one that the first use will put there.
A plugin that is not run is listed with the reason. With names only those are
listed, and it exits with 2 when one of them is not to be had.`,
		Example: `  teal plugins list
  teal plugins list process --json`,
		RunE: func(cmd *cobra.Command, names []string) error { return o.listPlugins(cmd.Context(), names) },
	}
	o.bindProject(cmd)
	return cmd
}

// A listed runtime is one line of teal plugins list.
type listed struct {
	loader.Found
	launch    loader.Spec
	version   string
	abilities []string
}

func (o *options) listPlugins(ctx context.Context, names []string) error {
	p, err := o.project()
	if err != nil {
		return err
	}
	list, unread := p.list()
	if len(names) > 0 {
		if list, err = p.only(list, names); err != nil {
			return err
		}
	}
	o.ask(ctx, list)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if unread != nil {
		fmt.Fprintf(o.streams.Err, "teal: %v\n", unread)
	}
	if err := o.showPlugins(list); err != nil {
		return err
	}
	refused := slices.ContainsFunc(list, func(l listed) bool { return l.Err != nil })
	if refused && len(names) > 0 {
		return &exitError{orchestrator.OutcomeUsage}
	}
	return nil
}

// list is what there is: built in, named by the app file, and in the folders.
// The error tells of folders that cannot be read.
func (p project) list() ([]listed, error) {
	var list []listed
	for _, name := range spec.Builtins() {
		launch, err := loader.Builtin(name)
		list = append(list, listed{
			Found:  loader.Found{Name: name, Origin: builtIn, Protocol: loader.GRPC, Locked: true, Err: err},
			launch: launch, version: version,
		})
	}
	inFolders, unread := loader.List(loader.FindOptions{Project: p.folder})
	named := p.names()
	var found []loader.Found
	for _, name := range named {
		f, err := p.find(name)
		if err != nil {
			f = loader.Found{Name: name, Origin: loader.FromFile, Path: p.app.Plugins[name].Path}
			i := slices.IndexFunc(inFolders, func(f loader.Found) bool { return f.Name == name })
			if f.Path == "" && i >= 0 {
				f = inFolders[i]
			}
			f.Err = err
		}
		found = append(found, f)
	}
	for _, f := range inFolders {
		switch {
		case slices.Contains(named, f.Name):
			continue
		case slices.Contains(spec.Builtins(), f.Name):
			f.Err = fmt.Errorf("%s is built in, and this file is never used: give it another name", f.Name)
		}
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b loader.Found) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range found {
		list = append(list, listed{Found: f, launch: p.launch(f)})
	}
	return list, unread
}

// builtIn is the origin of what comes with teal.
const builtIn loader.Origin = "built in"

// only are those of the names, in that order. One that is not there is listed
// with the places where it was looked for.
func (p project) only(list []listed, names []string) ([]listed, error) {
	var chosen []listed
	for _, name := range names {
		if err := loader.CheckName(name); err != nil {
			return nil, &orchestrator.UsageError{Err: err}
		}
		i := slices.IndexFunc(list, func(l listed) bool { return l.Name == name })
		if i >= 0 {
			chosen = append(chosen, list[i])
			continue
		}
		_, err := p.find(name)
		chosen = append(chosen, listed{Found: loader.Found{Name: name, Err: err}})
	}
	return chosen, nil
}

// ask starts all that may be started and notes what they say of themselves.
func (o *options) ask(ctx context.Context, list []listed) {
	var all sync.WaitGroup
	free := make(chan struct{}, answersAtOnce)
	for i := range list {
		l := &list[i]
		if l.Err != nil {
			continue
		}
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			l.launch.StartTimeout, l.launch.Log = answerTime, o.logger()
			plugin, err := loader.Start(ctx, l.launch)
			if err != nil {
				l.Err = err
				return
			}
			l.abilities = plugin.Abilities()
			if l.Origin != builtIn {
				l.version = plugin.Version()
			}
			l.Err = plugin.Close()
		})
	}
	all.Wait()
}

func (o *options) showPlugins(list []listed) error {
	if o.json {
		out := json.NewEncoder(o.streams.Out)
		var errs []error
		for _, l := range list {
			errs = append(errs, out.Encode(l.json()))
		}
		return errors.Join(errs...)
	}
	var rows [][]string
	var refused strings.Builder
	for _, l := range list {
		rows = append(rows, []string{
			l.Name, dash(string(l.Origin)), dash(l.version), dash(string(l.Protocol)), l.lock(),
			dash(strings.Join(l.abilities, ", ")), dash(shorten(l.SHA256)), dash(l.Path),
		})
		if l.Err != nil {
			fmt.Fprintf(&refused, "%s is not run: %v\n", l.Name, cause(l.Err))
		}
	}
	header := []string{"NAME", "ORIGIN", "VERSION", "PROTOCOL", "LOCK", "ABILITIES", "SHA-256", "PATH"}
	if err := display.Table(o.streams.Out, header, rows); err != nil || refused.Len() == 0 {
		return err
	}
	return display.Text(o.streams.Out, "\n"+refused.String())
}

// lock says in a word who has agreed to the plugin's content.
func (l listed) lock() string {
	switch {
	case l.Err != nil || l.Origin == builtIn:
		return "-"
	case l.Locked:
		return "locked"
	}
	return "new"
}

func (l listed) json() map[string]any {
	kind := "plugin"
	if l.Origin == builtIn {
		kind = string(builtIn)
	}
	row := map[string]any{
		"schema": 1, "name": l.Name, "kind": kind, "origin": l.Origin, "version": l.version, "protocol": l.Protocol,
		"path": l.Path, "sha256": l.SHA256, "locked": l.Locked, "abilities": append([]string{}, l.abilities...),
	}
	if l.Err != nil {
		row["error"] = cause(l.Err).Error()
	}
	return row
}
