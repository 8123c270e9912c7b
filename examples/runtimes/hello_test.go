package runtimes

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestHelloIsShort(t *testing.T) {
	source, err := os.ReadFile("hello/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(source, []byte("\n")); lines > 60 {
		t.Errorf("it has %d lines", lines)
	}
}

func TestHelloFromAModuleOfItsOwn(t *testing.T) {
	program := build(t, "hello")
	t.Setenv("HOME", t.TempDir()) // not before: what was built already is there
	t.Setenv("XDG_STATE_HOME", "")
	rt := start(t, loader.Spec{Name: "hello", Cmd: []string{program}}).Runtime()
	h := plugintest.Local("web1")
	info, err := rt.Probe(t.Context(), h)
	if err != nil || info.Name != "hello" || info.Version == "" {
		t.Fatalf("%+v, %v", info, err)
	}
	var made []plugins.Container
	for _, slot := range []string{"green", "blue"} {
		c, err := rt.Create(t.Context(), h, plugins.Spec{
			Name: "shop-" + slot, Image: "running", Labels: map[string]string{"app": "shop", "slot": slot},
		})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, c)
	}
	list := func(want []plugins.Container, labels map[string]string) {
		t.Helper()
		got, err := rt.List(t.Context(), h, labels)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
	}
	list(made, map[string]string{"app": "shop"})
	list(made[:1], map[string]string{"slot": "green"})
	list(nil, map[string]string{"app": "blog"})
	if err := rt.Stop(t.Context(), h, made[0].ID, time.Second); err != nil {
		t.Error(err)
	}
	made[0].Status = plugins.StatusExited
	list(made, nil)
	var out bytes.Buffer
	if err := rt.Exec(t.Context(), h, made[1].ID, &plugins.Command{Args: []string{"echo", "hello"}, Stdout: &out}); err != nil || out.String() != "hello\n" {
		t.Errorf("%q, %v", &out, err)
	}
	for range 2 {
		if err := rt.Remove(t.Context(), h, made[0].ID); err != nil {
			t.Error(err)
		}
	}
	list(made[1:], nil)
}
