package loader_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestSettingsReachThePlugin(t *testing.T) {
	scratch(t)
	spec := builtin(t, "settings")
	for _, tt := range []struct {
		settings map[string]any
		want     string
	}{
		{nil, `map[string]interface {}{}`},
		{map[string]any{"opt_level": int64(2), "store": map[string]any{"path": "/x"}}, `map[string]interface {}{"opt_level":2, "store":map[string]interface {}{"path":"/x"}}`},
	} {
		spec.Settings = tt.settings
		info, err := start(t, spec).Runtime().Probe(t.Context(), plugintest.Local("web1"))
		if diff := cmp.Diff(tt.want, info.Name); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
	}
}

func TestWrongSettingsAreToldWithTheirPlace(t *testing.T) {
	dir := scratch(t)
	for _, tt := range []struct {
		plugin   string
		settings map[string]any
		want     string
		paths    []string
		kind     plugins.Kind
	}{
		{
			"settings",
			map[string]any{"opt_level": 9},
			"start plugin settings: setting opt_level: 9 is more than 3",
			[]string{"opt_level"},
			plugins.Invalid,
		},
		{
			"settings",
			map[string]any{"opt_level": "two"},
			"start plugin settings: setting opt_level: it takes int, not string",
			[]string{"opt_level"},
			plugins.Invalid,
		},
		{
			"settings",
			map[string]any{"optlevel": 1, "store": map[string]any{"size": 1}},
			"start plugin settings: setting optlevel: there is no such setting\nsetting store.size: there is no such setting",
			[]string{"optlevel", "store.size"},
			plugins.Invalid,
		},
		{
			"full",
			map[string]any{"opt_level": 2},
			"start plugin full: settings: the plugin full takes none",
			[]string{""},
			plugins.Invalid,
		},
		{
			"settings",
			map[string]any{"opt_level": func() {}},
			"start plugin settings: settings: json: unsupported type: func()",
			[]string{""},
			plugins.Invalid,
		},
		{
			"settings",
			map[string]any{"crash": "oh dear"},
			"start plugin settings: configure: plugin settings died (exit status 2): panic: oh dear", nil, plugins.Unavailable,
		},
	} {
		spec := builtin(t, tt.plugin)
		spec.Settings = tt.settings
		_, err := loader.Start(t.Context(), spec)
		if plugins.KindOf(err) != tt.kind || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("the error is %v\nnot %s", err, tt.want)
		}
		if diff := cmp.Diff(tt.paths, settingPaths(err)); diff != "" {
			t.Errorf("%s: %s", tt.want, diff)
		}
		empty(t, dir)
	}
}

// settingPaths are those of all settings that err is about.
func settingPaths(err error) (paths []string) {
	if s, ok := err.(*plugins.SettingError); ok { //nolint:errorlint // link by link
		return []string{strings.Join(s.Path, ".")}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			paths = append(paths, settingPaths(err)...)
		}
		return paths
	}
	if cause := errors.Unwrap(err); cause != nil {
		return settingPaths(cause)
	}
	return nil
}
