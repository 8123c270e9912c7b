package loader_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// What a plugin costs over the same runtime in teal's own process: to start, a
// call, a call that runs a command on the host, and a megabyte of a stream.

// execPlugin is a program that speaks loader.Exec and does what full does.
func execPlugin(b *testing.B) loader.Spec {
	b.Helper()
	path := filepath.Join(b.TempDir(), "teal-runtime-bench")
	script := `#!/bin/sh
read -r request
case $request in
*'"call":"exec"'*) echo '{"stream":["cat"]}'; read -r answer ;;
esac
echo '{"result":{}}'
`
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		b.Fatal(err)
	}
	return loader.Spec{Name: "bench", Cmd: []string{path}, Protocol: loader.Exec}
}

func grpcPlugin(b *testing.B) loader.Spec {
	b.Helper()
	spec, err := loader.Builtin("full")
	if err != nil {
		b.Fatal(err)
	}
	return spec
}

// eachRuntime runs a benchmark without a hop, and with one of each protocol,
// which it compares with the first.
func eachRuntime(b *testing.B, run func(*testing.B, plugins.Runtime)) {
	var alone float64 // nanoseconds
	each := func(b *testing.B) float64 { return float64(b.Elapsed()) / float64(b.N) }
	b.Run("in process", func(b *testing.B) {
		run(b, &full{})
		alone = each(b)
	})
	for name, spec := range map[string]func(*testing.B) loader.Spec{"grpc": grpcPlugin, "exec": execPlugin} {
		b.Run(name, func(b *testing.B) {
			p, err := loader.Start(b.Context(), spec(b))
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			run(b, p.Runtime())
			if alone > 0 {
				b.ReportMetric(each(b)/alone, "x-in-process")
			}
		})
	}
}

func BenchmarkStart(b *testing.B) {
	for name, spec := range map[string]func(*testing.B) loader.Spec{"grpc": grpcPlugin, "exec": execPlugin} {
		b.Run(name, func(b *testing.B) {
			s := spec(b)
			for b.Loop() {
				p, err := loader.Start(b.Context(), s)
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCall(b *testing.B) {
	eachRuntime(b, func(b *testing.B, rt plugins.Runtime) {
		h := plugintest.Local("web1")
		for b.Loop() {
			if err := rt.Remove(b.Context(), h, "c1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCommandOnTheHost(b *testing.B) {
	eachRuntime(b, func(b *testing.B, rt plugins.Runtime) {
		h := plugintest.Local("web1")
		for b.Loop() {
			if err := rt.Exec(b.Context(), h, "c1", &plugins.Command{Args: []string{"cat"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStream sends a megabyte through a command and back.
func BenchmarkStream(b *testing.B) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	eachRuntime(b, func(b *testing.B, rt plugins.Runtime) {
		h := plugintest.Local("web1")
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			err := rt.Exec(b.Context(), h, "c1", &plugins.Command{Args: []string{"cat"}, Stdin: bytes.NewReader(data), Stdout: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
