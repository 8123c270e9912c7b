package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A Configurer takes the settings that the app file has for the runtime, in
// [plugins.NAME.settings]. It is called once, before anything else, also when
// there are no settings. What is wrong with one it reports as a
// *[SettingError], several of them joined: teal shows each at its place in the
// file. Settings for a runtime that is no Configurer are refused.
type Configurer interface {
	// Configure gets what the file says as string, bool, int64, float64,
	// []any and map[string]any. A date arrives as a string as RFC 3339 has
	// it.
	Configure(ctx context.Context, settings map[string]any) error
}

// A SettingError says which setting is wrong and why.
type SettingError struct {
	Path []string // the keys that lead to it: {"cache", "size"}; empty: the settings as a whole
	Err  error
}

func (e *SettingError) Error() string {
	cause := "wrong"
	if e.Err != nil {
		cause = e.Err.Error()
	}
	if len(e.Path) == 0 {
		return "settings: " + cause
	}
	return "setting " + strings.Join(e.Path, ".") + ": " + cause
}

// Unwrap returns the cause.
func (e *SettingError) Unwrap() error { return e.Err }

// Is reports whether target is Invalid.
func (e *SettingError) Is(target error) bool { return target == error(Invalid) }

// DecodeSettings stores settings in the struct that into points to, by the
// rules of encoding/json. What into has already is the default. A setting that
// the struct does not have, and one of the wrong type, is a *[SettingError];
// all of those that are unknown are reported at once.
func DecodeSettings(settings map[string]any, into any) error {
	if err := unknown(settings, reflect.TypeOf(into), nil); err != nil {
		return err
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return &SettingError{Err: err}
	}
	err = json.Unmarshal(text, into)
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &SettingError{
			Path: strings.Split(mismatch.Field, "."),
			Err:  fmt.Errorf("it takes %s, not %s", named(mismatch.Type), mismatch.Value),
		}
	}
	if err != nil {
		return &SettingError{Err: err}
	}
	return nil
}

// named says what a setting of type t takes, for people who know TOML.
func named(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a table"
	case reflect.Slice, reflect.Array:
		return "a list"
	default:
		return t.Kind().String()
	}
}

// unknown reports the settings for which t, a struct or a pointer to one, has
// no field.
func unknown(settings map[string]any, t reflect.Type, path []string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() && name != "-" {
			if name == "" {
				name = f.Name
			}
			fields[strings.ToLower(name)] = f.Type
		}
	}
	var all []error
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		at := append(slices.Clone(path), key)
		field, ok := fields[strings.ToLower(key)]
		if !ok {
			all = append(all, &SettingError{Path: at, Err: errors.New("there is no such setting")})
			continue
		}
		if inner, ok := settings[key].(map[string]any); ok {
			all = append(all, unknown(inner, field, at))
		}
	}
	return errors.Join(all...)
}
