package wire

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

func TestSettingsKeepTheirTypes(t *testing.T) {
	want := map[string]any{
		"text": "x\n", "yes": true, "whole": int64(1) << 60, "part": 1.5,
		"list": []any{int64(1), "a", map[string]any{"deep": int64(-1)}}, "table": map[string]any{"deep": 0.25},
	}
	text, err := MarshalSettings(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unmarshalSettings(text)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestNoSettingsAreAnEmptyTable(t *testing.T) {
	text, err := MarshalSettings(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{text, nil} {
		if got, err := unmarshalSettings(text); got == nil || len(got) != 0 || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestSettingsThatAreNoTableAreInvalid(t *testing.T) {
	if _, err := unmarshalSettings([]byte(`[1]`)); !errors.Is(err, plugins.Invalid) {
		t.Error(err)
	}
	if _, err := MarshalSettings(map[string]any{"a": make(chan int)}); !errors.Is(err, plugins.Invalid) {
		t.Error(err)
	}
}
