package remote_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

func BenchmarkDial(b *testing.B) {
	h := remotetest.Start(b, remotetest.Options{}).Inventory("web1")
	d := &remote.Dialer{Config: "none"}
	for b.Loop() {
		c, err := d.Dial(b.Context(), h)
		if err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}

func BenchmarkRun(b *testing.B) {
	tests := map[string]func() *plugins.Command{
		"plain": func() *plugins.Command { return &plugins.Command{Args: []string{"true"}} },
		"environment": func() *plugins.Command {
			return &plugins.Command{Args: []string{"true"}, Env: map[string]string{"A": "b"}}
		},
		"input": func() *plugins.Command {
			return &plugins.Command{Args: []string{"cat"}, Stdin: strings.NewReader("text")}
		},
	}
	h := remotetest.Start(b, remotetest.Options{}).Inventory("web1")
	c, err := (&remote.Dialer{Config: "none"}).Dial(b.Context(), h)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for name, cmd := range tests {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := c.Run(b.Context(), cmd()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUploadByShell(b *testing.B) {
	h := remotetest.Start(b, remotetest.Options{RefuseSFTP: true}).Inventory("web1")
	c, err := (&remote.Dialer{Config: "none"}).Dial(b.Context(), h)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	b.SetBytes(int64(len(data)))
	target := b.TempDir() + "/file"
	for b.Loop() {
		if err := c.Upload(b.Context(), target, bytes.NewReader(data), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
