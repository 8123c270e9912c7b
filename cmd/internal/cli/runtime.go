package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/teal-deploy/teal/inventory/tomlfile"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
)

const runtimeUsage = "what makes the containers: docker, podman or the `name` of a plugin (default \"docker\")"

// startRuntime starts the app's runtime as a plugin, once a session. What is
// wrong with what the app file says of it is shown there.
func (s *session) startRuntime(ctx context.Context, app spec.App) (plugins.Runtime, error) {
	if s.runtime != nil {
		return s.runtime.Runtime(), nil
	}
	launch, found, err := s.launch(app)
	if err != nil {
		return nil, err
	}
	launch.Log = s.log
	plugin, err := loader.Start(ctx, launch)
	wrong := settingErrors(err)
	switch {
	case len(wrong) > 0:
		return nil, &orchestrator.UsageError{Err: s.settingProblems(app.Runtime, wrong)}
	case errors.Is(err, plugins.NotFound), errors.Is(err, plugins.Denied): // changed since it was found
		return nil, &orchestrator.UsageError{Err: err}
	case err != nil:
		return nil, err
	}
	s.runtime = plugin
	s.agree(found, plugin.Version())
	return plugin.Runtime(), nil
}

// launch says how the app's runtime is started: from this program, or from the
// plugin of that name, which was found.
func (s *session) launch(app spec.App) (loader.Spec, loader.Found, error) {
	if slices.Contains(spec.Builtins(), app.Runtime) {
		launch, err := loader.Builtin(app.Runtime)
		return launch, loader.Found{Locked: true}, err
	}
	about := app.Plugins[app.Runtime]
	found, err := loader.Find(app.Runtime, whereIs(about, s.project()))
	if err != nil {
		return loader.Spec{}, found, &orchestrator.UsageError{Err: s.findProblem(app, err)}
	}
	launch := found.Spec()
	launch.Settings, launch.CallTimeout = about.Settings, about.Timeout
	return launch, found, nil
}

// project is the folder of the app file, "" without one.
func (s *session) project() string {
	if s.file.Path() == "" {
		return ""
	}
	return s.file.Dir()
}

// whereIs says where the plugin is looked for that an app file says this about.
func whereIs(about spec.Plugin, project string) loader.FindOptions {
	return loader.FindOptions{
		Path: about.Path, SHA256: about.SHA256, Protocol: loader.Protocol(about.Protocol), Project: project,
	}
}

// agree writes a plugin that was started for the first time into the project's
// lock file: from then on no other content is run.
func (s *session) agree(found loader.Found, version string) {
	if found.Locked || s.project() == "" {
		return
	}
	path := loader.LockPath(s.project())
	if err := loader.Accept(s.project(), found, version); err != nil {
		s.say(fmt.Sprintf("teal: the plugin %s is not kept in %s, so that a change of it will not be noticed: %v", found.Name, path, err))
		return
	}
	s.say(fmt.Sprintf("teal: the plugin %s is used for the first time: %s is to be kept with the app file, and no other content of it is run from now on", found.Name, path))
}

// findProblem shows why a plugin is not to be had where the app file names it.
func (s *session) findProblem(app spec.App, err error) error {
	why := err
	if e, ok := errors.AsType[*plugins.Error](err); ok && e.Err != nil {
		why = e.Err // without the name, which is shown
	}
	if app.Plugins[app.Runtime].Path != "" {
		return s.file.Problem(tomlfile.Join("plugins", app.Runtime)+".path", why.Error(), "")
	}
	if !errors.Is(err, plugins.NotFound) {
		return s.file.Problem("runtime", why.Error(), "")
	}
	known := spec.Builtins()
	for name := range app.Plugins {
		known = append(known, name)
	}
	slices.Sort(known)
	hint := tomlfile.DidYouMean(app.Runtime, known)
	if hint == "" {
		hint = "put the plugin there, or say where it is: [plugins." + app.Runtime + "]"
	}
	return s.file.Problem("runtime", fmt.Sprintf("%q is not built in, and %s", app.Runtime, why), hint)
}

// settingProblems shows what a plugin has against its settings.
func (s *session) settingProblems(runtime string, wrong []*plugins.SettingError) error {
	var problems tomlfile.Problems
	for _, w := range wrong {
		key := tomlfile.Join("plugins", runtime) + ".settings"
		for _, name := range w.Path {
			key = tomlfile.Join(key, name)
		}
		why := "wrong"
		if w.Err != nil {
			why = w.Err.Error()
		}
		if found, ok := errors.AsType[tomlfile.Problems](s.file.Problem(key, why, "")); ok {
			problems = append(problems, found...)
		}
	}
	return problems.Err()
}

// settingErrors returns all errors about settings that err consists of.
func settingErrors(err error) []*plugins.SettingError {
	if one, ok := err.(*plugins.SettingError); ok { //nolint:errorlint // the tree is walked here
		return []*plugins.SettingError{one}
	}
	var found []*plugins.SettingError
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case interface{ Unwrap() error }:
		found = settingErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, below := range e.Unwrap() {
			found = append(found, settingErrors(below)...)
		}
	}
	return found
}
