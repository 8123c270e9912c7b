package loader_test

import (
	"context"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestVertical(t *testing.T) {
	spec, err := loader.Builtin("full")
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	info, err := p.Runtime().Probe(context.Background(), plugintest.Local("here"))
	t.Log(info, err)
	_, err = p.Runtime().Create(context.Background(), plugintest.Local("here"), plugins.Spec{Name: "panic"})
	t.Log(err)
}
