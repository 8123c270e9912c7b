package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// The plugin of TestFaults: its containers are notes in a folder of the host,
// and in one of its calls it misbehaves. It is this program, started as
//
//	serve-fault grpc|exec call what

const (
	faultWord = "serve-fault"
	secret    = "open-sesame-42"
)

// serveFault serves the plugin when args ask for it.
func serveFault(args []string) bool {
	if len(args) != 4 || args[0] != faultWord {
		return false
	}
	log.SetFlags(0)
	rt := &noted{call: args[2], what: args[3]}
	if args[1] == "exec" {
		serveLines(rt)
	} else {
		sdk.Serve(rt)
	}
	return true
}

type noted struct {
	call, what string
	kept       plugins.Host // that of the first call
}

// A note is what the host has of a container.
type note struct {
	plugins.Container

	Version string
}

// misbehave does what the plugin was started for, in the call that it was
// started for.
func (n *noted) misbehave(h plugins.Host, call string) error {
	if n.kept == nil {
		n.kept = h
	}
	if !slices.Contains(strings.Split(n.call, "-and-"), call) {
		return nil
	}
	switch n.what {
	case "crash":
		log.Print("I have a bad feeling")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "panic":
		panic("assignment to entry in nil map")
	case "hang":
		log.Print("one moment please")
		hang()
	case "hang with a child":
		_ = exec.Command("sleep", "1000").Start()
		_, err := plugins.Output(context.Background(), h, script(`: >"$HOME/began"`)...)
		if err != nil {
			return err
		}
		hang()
	case "flood":
		lines := []byte(strings.Repeat(strings.Repeat("all is well, ", 80)+"\n", 100))
		for range 200 << 20 / len(lines) {
			_, _ = log.Writer().Write(lines)
		}
	case "kind":
		return &plugins.Error{Op: call, Host: h.String(), Kind: "melted", Err: errors.New("the engine is too hot")}
	case "other host":
		return &plugins.Error{Op: call, Host: "web9", Kind: plugins.Conflict, Err: errors.New("the port is taken")}
	case "no names":
		return errors.New("it did not work")
	case "kept host":
		_, err := plugins.Output(context.Background(), n.kept, "true")
		return err
	}
	return nil
}

// hang listens to nobody.
func hang() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	time.Sleep(10 * time.Minute)
}

func script(work string, args ...string) []string {
	return append([]string{"sh", "-c", `mkdir -p "$HOME/notes" && cd "$HOME/notes" && ` + work, "noted"}, args...)
}

func (n *noted) Probe(_ context.Context, h plugins.Host) (plugins.Info, error) {
	return plugins.Info{Name: "noted", Version: "1"}, n.misbehave(h, "probe")
}

func (n *noted) Pull(_ context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	return plugins.Image{Reference: req.Image, Digest: "sha256:" + strings.Repeat("0", 64)}, n.misbehave(h, "pull")
}

func (n *noted) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	c := plugins.Container{
		ID: spec.Name, Name: spec.Name, Image: spec.Image, Labels: spec.Labels, Status: plugins.StatusRunning, Created: time.Now(),
	}
	text, err := json.Marshal(note{c, spec.Env["TEAL_VERSION"]})
	if err != nil {
		return c, err
	}
	if err := h.Run(ctx, &plugins.Command{Args: script(`cat >"$1"`, c.ID), Stdin: bytes.NewReader(text)}); err != nil {
		return c, err
	}
	if n.call == "create" {
		switch n.what {
		case "other name":
			c.Name = "postgres"
		case "other labels":
			c.Labels = nil
		case "no id":
			c.ID = ""
		case "secret":
			log.Print("the password is " + spec.Env["TOKEN"])
			panic("cannot log in with " + spec.Env["TOKEN"])
		}
	}
	return c, n.misbehave(h, "create")
}

func (n *noted) Exec(ctx context.Context, h plugins.Host, _ string, cmd *plugins.Command) error {
	if err := n.misbehave(h, "exec"); err != nil {
		return err
	}
	return h.Run(ctx, cmd)
}

func (n *noted) List(ctx context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	text, err := plugins.Output(ctx, h, script(`ls | xargs -r cat --`)...)
	if err != nil {
		return nil, err
	}
	var list []plugins.Container
	for all := json.NewDecoder(bytes.NewReader(text)); all.More(); {
		var c note
		if err := all.Decode(&c); err != nil {
			return nil, err
		}
		if c.HasLabels(labels) || n.call == "list" && n.what == "other labels" {
			list = append(list, c.Container)
		}
	}
	return list, n.misbehave(h, "list")
}

func (n *noted) Stop(_ context.Context, h plugins.Host, _ string, _ time.Duration) error {
	return n.misbehave(h, "stop")
}

func (n *noted) Remove(ctx context.Context, h plugins.Host, id string) error {
	if err := n.misbehave(h, "remove"); err != nil {
		return err
	}
	_, err := plugins.Output(ctx, h, script(`rm -f -- "$1"`, id)...)
	return err
}

func (n *noted) LocalCommands(_ context.Context, h plugins.Host, id string, _ time.Duration) (plugins.LocalCommands, error) {
	if n.call == "local-commands" && n.what == "nothing" {
		return plugins.LocalCommands{}, nil
	}
	return plugins.LocalCommands{
		PID: []string{"echo", "1"}, Stop: []string{"true"}, Remove: script(`rm -f -- "$1"`, id),
	}, n.misbehave(h, "local-commands")
}

// serveLines serves one call by the protocol of lines, with the same runtime.
func serveLines(n *noted) {
	h := &asked{in: json.NewDecoder(bufio.NewReader(os.Stdin)), out: json.NewEncoder(os.Stdout)}
	var req struct {
		Call, Host, ID string
		Labels         map[string]string
		Spec           plugins.Spec // some of its fields have other names here; the notes do without
		Command        struct{ Args []string }
	}
	type said = map[string]any
	if err := h.in.Decode(&req); err != nil {
		log.Fatal(err)
	}
	h.name = req.Host
	ctx := context.Background()
	var result any
	var err error
	switch req.Call {
	case "describe":
		result = said{"calls": []string{"local-commands"}}
	case "probe":
		_, err = n.Probe(ctx, h)
		result = said{"name": "noted", "version": "1"}
	case "create":
		var c plugins.Container
		c, err = n.Create(ctx, h, req.Spec)
		result = line(c)
	case "list":
		var list []plugins.Container
		list, err = n.List(ctx, h, req.Labels)
		lines := []any{}
		for _, c := range list {
			lines = append(lines, line(c))
		}
		result = said{"containers": lines}
	case "exec":
		if err = n.misbehave(h, "exec"); err == nil {
			h.say(said{"stream": req.Command.Args})
			result = said{"code": h.answer().Code}
		}
	case "stop":
		err, result = n.Stop(ctx, h, req.ID, 0), said{}
	case "remove":
		err, result = n.Remove(ctx, h, req.ID), said{}
	case "local-commands":
		var cmds plugins.LocalCommands
		cmds, err = n.LocalCommands(ctx, h, req.ID, 0)
		result = said{"pid": cmds.PID, "stop": cmds.Stop, "remove": cmds.Remove}
	}
	if err != nil {
		h.say(said{"error": said{"kind": plugins.KindOf(err), "message": err.Error()}})
		return
	}
	h.say(said{"result": result})
}

func line(c plugins.Container) any {
	return map[string]any{
		"id": c.ID, "name": c.Name, "image": c.Image, "labels": c.Labels, "status": c.Status, "created": c.Created,
	}
}

// An asked host is one on which teal runs what this program asks for.
type asked struct {
	name string
	in   *json.Decoder
	out  *json.Encoder
}

type reply struct {
	Code           int
	Stdout, Stderr string
}

func (h *asked) say(v any) { _ = h.out.Encode(v) }

func (h *asked) answer() (r reply) {
	if err := h.in.Decode(&r); err != nil {
		log.Fatal(err) // teal has gone
	}
	return r
}

func (h *asked) String() string { return h.name }

func (h *asked) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, plugins.Unsupported
}

func (h *asked) Run(_ context.Context, cmd *plugins.Command) error {
	var stdin []byte
	if cmd.Stdin != nil {
		stdin, _ = io.ReadAll(cmd.Stdin)
	}
	h.say(map[string]any{"run": cmd.Args, "stdin": string(stdin)})
	r := h.answer()
	if cmd.Stdout != nil {
		_, _ = io.WriteString(cmd.Stdout, r.Stdout)
	}
	if r.Code != 0 {
		return &plugins.ExitError{Host: h.name, Args: cmd.Args, Code: r.Code, Stderr: []byte(r.Stderr)}
	}
	return nil
}
