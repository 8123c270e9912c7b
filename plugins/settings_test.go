package plugins_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

type storeSettings struct {
	Path string   `json:"path"`
	Tags []string `json:"tags"`
}

type settings struct {
	Level int `json:"level,omitempty"`
	Name  string
	Store storeSettings  `json:"store"`
	Cache *storeSettings `json:"cache"`
	Free  map[string]any `json:"free"`
	Own   string         `json:"-"`
}

func TestDecodeSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   map[string]any
		want settings
		err  string
	}{
		{"none", nil, settings{Level: 1}, ""},
		{
			"all",
			map[string]any{
				"level": int64(3), "name": "x", "store": map[string]any{"path": "/a", "tags": []any{"b"}},
				"cache": map[string]any{"path": "/c"}, "free": map[string]any{"any": true},
			},
			settings{
				Level: 3, Name: "x", Store: storeSettings{Path: "/a", Tags: []string{"b"}},
				Cache: &storeSettings{Path: "/c"}, Free: map[string]any{"any": true},
			},
			"",
		},
		{"unknown", map[string]any{"depth": 3}, settings{Level: 1}, "setting depth: there is no such setting"},
		{"hidden", map[string]any{"own": "x"}, settings{Level: 1}, "setting own: there is no such setting"},
		{
			"unknown within",
			map[string]any{"cache": map[string]any{"x": 1}, "store": map[string]any{"y": 1}},
			settings{Level: 1},
			"setting cache.x: there is no such setting\nsetting store.y: there is no such setting",
		},
		{"wrong type", map[string]any{"level": "high"}, settings{Level: 1}, "setting level: it takes int, not string"},
		{"wrong type within", map[string]any{"store": map[string]any{"path": 1}}, settings{Level: 1}, "setting store.path: it takes string, not number"},
		{"no list", map[string]any{"store": map[string]any{"tags": "x"}}, settings{Level: 1}, "setting store.tags: it takes a list, not string"},
		{"no table", map[string]any{"store": "x"}, settings{Level: 1}, "setting store: it takes a table, not string"},
		{"a fraction", map[string]any{"level": 1.5}, settings{Level: 1}, "setting level: it takes int, not number 1.5"},
		{"not for JSON", map[string]any{"level": func() {}}, settings{Level: 1}, "settings: json: unsupported type: func()"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := settings{Level: 1}
			err := plugins.DecodeSettings(tt.in, &got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if text := errorText(err); text != tt.err {
				t.Errorf("the error is %q, not %q", text, tt.err)
			}
			if err != nil && !errors.Is(err, plugins.Invalid) {
				t.Errorf("%v is not invalid", err)
			}
		})
	}
}

func TestDecodeSettingsIntoAMapTakesAll(t *testing.T) {
	got := map[string]any{}
	if err := plugins.DecodeSettings(map[string]any{"a": "b"}, &got); err != nil || got["a"] != "b" {
		t.Errorf("%v, %v", got, err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSettingErrorNamesTheSetting(t *testing.T) {
	cause := errors.New("too long")
	for _, tt := range []struct {
		err  *plugins.SettingError
		want string
	}{
		{&plugins.SettingError{}, "settings: wrong"},
		{&plugins.SettingError{Path: []string{"a"}}, "setting a: wrong"},
		{&plugins.SettingError{Path: []string{"a", "b"}, Err: cause}, "setting a.b: too long"},
	} {
		if got := tt.err.Error(); got != tt.want || !errors.Is(tt.err, plugins.Invalid) || errors.Is(tt.err, plugins.Denied) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if !errors.Is(&plugins.SettingError{Err: cause}, cause) {
		t.Error("the cause is lost")
	}
}
