// Hello is a runtime for teal in sixty lines: its containers are notes on the host.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/sdk"
)

func main() { sdk.Serve(hello{}) }

type hello struct{}

func script(work string, args ...string) []string {
	return append([]string{"sh", "-c", `d=${XDG_STATE_HOME:-$HOME/.local/state}/teal-hello; mkdir -p "$d" && cd "$d" && ` + work, "hello"}, args...)
}

func (hello) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	version, err := plugins.Output(ctx, h, "uname", "-r")
	return plugins.Info{Name: "hello", Version: string(bytes.TrimSpace(version))}, err
}

func (hello) Pull(_ context.Context, _ plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	return plugins.Image{Reference: req.Image, Digest: "sha256:" + req.Image}, nil
}

func (hello) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	c := plugins.Container{ID: spec.Name, Name: spec.Name, Image: spec.Image, Labels: spec.Labels, Status: plugins.StatusRunning, Created: time.Now()}
	note, _ := json.Marshal(c) // cannot fail: it holds nothing but texts, numbers and a time
	return c, h.Run(ctx, &plugins.Command{Args: script(`cat >"$1"`, c.ID), Stdin: bytes.NewReader(note)})
}

func (hello) Exec(ctx context.Context, h plugins.Host, _ string, cmd *plugins.Command) error {
	return h.Run(ctx, cmd)
}

func (hello) List(ctx context.Context, h plugins.Host, labels map[string]string) (list []plugins.Container, err error) {
	notes, err := plugins.Output(ctx, h, script(`ls | xargs -r cat --`)...)
	for all := json.NewDecoder(bytes.NewReader(notes)); err == nil && all.More(); {
		var c plugins.Container
		if err = all.Decode(&c); err == nil && c.HasLabels(labels) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b plugins.Container) int { return a.Created.Compare(b.Created) })
	return list, err
}

func (hello) Stop(ctx context.Context, h plugins.Host, id string, _ time.Duration) error {
	return h.Run(ctx, &plugins.Command{Args: script(`[ ! -e "$1" ] || sed -i 's/"Status":"running"/"Status":"exited"/' "$1"`, id)})
}

func (hello) Remove(ctx context.Context, h plugins.Host, id string) error {
	return h.Run(ctx, &plugins.Command{Args: script(`rm -f -- "$1"`, id)})
}
