// Process is a runtime for teal without a container engine: a container is a
// process of the login user on the host, kept alive by a small supervisor. The
// supervisor is a systemd unit where the login user is root and systemd runs, and
// a process in a session of its own elsewhere.
//
// In the app file:
//
//	runtime = "process"
//	code = { repository = "…", path = "/srv/app" }
//	container = { port = 8080, command = ["bin/web"] }
//
// The command is started in the folder of the code, with the port to listen at
// as PORT in its environment: every release has its own folder and each slot
// its own port. The host's files are all there is: code.path is not made on
// the host, but an argument that is this path, or one below it, is replaced by
// that of the release's folder; install lines run there. A named volume is a
// folder of the login user's.
//
// What it cannot do, and refuses: read-only volumes, and limits of memory and
// CPU where there is no systemd. There nothing is started by itself after a reboot
// of the host, either: deploy again.
//
// What happens on the host is in process.sh.
package main

import (
	"bytes"
	"context"
	_ "embed" // process.sh
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/sdk"
)

//go:embed process.sh
var script string

// What whoever asks for an image gets: a test of all runtimes does.
const (
	noImage = "none"
	// noDigest is the SHA-256 sum of nothing, equal on all hosts.
	noDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func main() { sdk.Serve(&process{}) }

type process struct {
	Supervisor string `json:"supervisor"` // systemd or setsid; "": what the host has
}

// Configure implements plugins.Configurer.
func (p *process) Configure(_ context.Context, settings map[string]any) error {
	if err := plugins.DecodeSettings(settings, p); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "systemd", "setsid"}, p.Supervisor) {
		return &plugins.SettingError{Path: []string{"supervisor"}, Err: fmt.Errorf("%q is neither systemd nor setsid", p.Supervisor)}
	}
	return nil
}

func (p *process) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	supervisor, err := p.on(ctx, h, "probe", nil)
	return plugins.Info{Name: "process", Version: "1", Settings: fmt.Appendf(nil, `{"supervisor":%q}`, supervisor)}, err
}

func (p *process) Pull(_ context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	if req.Image != noImage {
		return plugins.Image{}, &plugins.Error{
			Op: "pull " + req.Image, Host: h.String(), Kind: plugins.NotFound,
			Err: errors.New("a process has no image: leave [image] out"),
		}
	}
	return plugins.Image{Reference: noImage, Digest: noDigest}, nil
}

func (p *process) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	files, err := p.files(ctx, h, spec)
	if err != nil {
		return plugins.Container{}, &plugins.Error{Op: "create " + spec.Name, Host: h.String(), Kind: plugins.KindOf(err), Err: err}
	}
	if spec.Publish.IsValid() {
		env := map[string]string{"PORT": strconv.Itoa(int(spec.Publish.Port()))}
		maps.Copy(env, spec.Env)
		spec.Env = env
	}
	var env strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		fmt.Fprintf(&env, "export %s=%s\n", name, quote(spec.Env[name]))
	}
	out, err := p.on(ctx, h, "create", strings.NewReader(env.String()), append([]string{spec.Name}, files...)...)
	if err != nil {
		return plugins.Container{}, err
	}
	return parse(out)
}

// files are the names and contents of what makes the container, labels first.
func (p *process) files(ctx context.Context, h plugins.Host, spec plugins.Spec) ([]string, error) {
	invalid := func(kind plugins.Kind, format string, args ...any) ([]string, error) {
		return nil, &plugins.Error{Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	if spec.Image != "" {
		if _, err := p.Pull(ctx, h, plugins.PullRequest{Image: spec.Image}); err != nil {
			return nil, err
		}
	}
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`).MatchString(spec.Name) {
		return invalid(plugins.Invalid, "%q is no name for a container", spec.Name)
	}
	if len(spec.Command) == 0 {
		return invalid(plugins.Invalid, "there is no command: set container.command")
	}
	for name := range spec.Env {
		if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name) {
			return invalid(plugins.Invalid, "%q is no name for a variable", name)
		}
	}
	var mounts strings.Builder
	for _, m := range spec.Mounts {
		switch {
		case m.ReadOnly:
			return invalid(plugins.Unsupported, "%s cannot be read-only: a process may write what its user may", m.Target)
		case strings.ContainsAny(m.Source+m.Target, "\t\n") || strings.HasPrefix(m.Source, "."):
			return invalid(plugins.Invalid, "%q cannot be mounted at %q", m.Source, m.Target)
		}
		fmt.Fprintf(&mounts, "%s\t%s\n", m.Target, m.Source)
	}
	keeper := p.Supervisor
	if keeper == "" {
		var err error
		if keeper, err = p.on(ctx, h, "probe", nil); err != nil {
			return nil, err
		}
	}
	var memory, cpus, port string
	if spec.Memory > 0 {
		memory = strconv.FormatInt(spec.Memory, 10)
	}
	if spec.CPUs > 0 {
		cpus = strconv.FormatFloat(spec.CPUs*100, 'f', -1, 64)
	}
	if spec.Publish.IsValid() {
		port = strconv.Itoa(int(spec.Publish.Port()))
	}
	command := []string{"set --"}
	for _, arg := range spec.Command {
		command = append(command, quote(arg))
	}
	labels, _ := json.Marshal(spec.Labels) // texts alone: cannot fail
	note, _ := json.Marshal(plugins.Container{ID: spec.Name, Name: spec.Name, Image: spec.Image, Labels: spec.Labels})
	return []string{
		"labels", string(labels), "note", string(note), "restart", string(spec.Restart), "port", port, "keeper", keeper,
		"mounts", mounts.String(), "limits", memory + "\n" + cpus, "command", strings.Join(command, " "), "process.sh", script,
	}, nil
}

func (p *process) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	inside := *cmd
	inside.Become = false
	inside.Args = append([]string{"sh", "-c", script, "teal-process", "exec", id}, cmd.Args...)
	err := h.Run(ctx, &inside)
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		exit.Args = cmd.Args
		if exit.Code == 125 && strings.HasSuffix(string(exit.Stderr), "the container "+id+" does not run\n") {
			return &plugins.Error{Op: "exec in " + id, Host: h.String(), Kind: plugins.NotFound, Err: errors.New("it does not run")}
		}
	}
	return err
}

func (p *process) List(ctx context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	out, err := p.on(ctx, h, "list", nil)
	if err != nil {
		return nil, err
	}
	var list []plugins.Container
	for line := range strings.Lines(out) {
		c, err := parse(line)
		if err != nil {
			return nil, err
		}
		if c.HasLabels(labels) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b plugins.Container) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// parse reads a line of describe in process.sh.
func parse(line string) (plugins.Container, error) {
	var c plugins.Container
	fields := strings.SplitN(strings.TrimSpace(line), " ", 5)
	if len(fields) < 5 {
		return c, fmt.Errorf("the host told %q of a container", line)
	}
	pid, badPID := strconv.Atoi(fields[1])
	code, badCode := strconv.Atoi(fields[2])
	created, badTime := strconv.ParseInt(fields[3], 10, 64)
	if err := errors.Join(badPID, badCode, badTime, json.Unmarshal([]byte(fields[4]), &c)); err != nil {
		return c, err
	}
	c.Status, c.PID, c.Created = plugins.Status(fields[0]), pid, time.Unix(0, created)
	if c.Status == plugins.StatusExited {
		c.ExitCode = code
	}
	return c, nil
}

func (p *process) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	_, err := p.on(ctx, h, "stop", nil, id, tenths(grace))
	return err
}

func (p *process) Remove(ctx context.Context, h plugins.Host, id string) error {
	_, err := p.on(ctx, h, "remove", nil, id)
	return err
}

// Restart implements plugins.Restarter.
func (p *process) Restart(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	_, err := p.on(ctx, h, "restart", nil, id, tenths(grace))
	return err
}

// SetRestartPolicy implements plugins.RestartPolicySetter.
func (p *process) SetRestartPolicy(ctx context.Context, h plugins.Host, id string, policy plugins.RestartPolicy) error {
	_, err := p.on(ctx, h, "policy", nil, id, string(policy))
	return err
}

// Logs implements plugins.LogStreamer.
func (p *process) Logs(ctx context.Context, h plugins.Host, id string, lines int, w io.Writer) error {
	return failure("read logs of "+id, h, h.Run(ctx, &plugins.Command{Args: argv("logs", id, strconv.Itoa(lines)), Stdout: w}))
}

// LocalCommands implements plugins.LocalRemover.
func (p *process) LocalCommands(ctx context.Context, h plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	port, err := p.on(ctx, h, "port", nil, id)
	if err != nil {
		return plugins.LocalCommands{}, err
	}
	listens, err := strconv.ParseUint("0"+port, 10, 16)
	return plugins.LocalCommands{
		PID: argv("pid", id), Stop: argv("stop", id, tenths(grace)), Remove: argv("remove", id), Port: uint16(listens),
	}, err
}

func argv(args ...string) []string {
	return append([]string{"sh", "-c", script, "teal-process"}, args...)
}

// on does something of process.sh and returns what it printed.
func (p *process) on(ctx context.Context, h plugins.Host, what string, stdin io.Reader, args ...string) (string, error) {
	var out bytes.Buffer
	err := h.Run(ctx, &plugins.Command{Args: argv(append([]string{what}, args...)...), Stdin: stdin, Stdout: &out})
	return strings.TrimSpace(out.String()), failure(strings.Join(append([]string{what}, args[:min(1, len(args))]...), " "), h, err)
}

// failure makes the exit codes of process.sh kinds.
func failure(op string, h plugins.Host, err error) error {
	exit, ok := errors.AsType[*plugins.ExitError](err)
	if !ok {
		return err
	}
	e := &plugins.Error{Op: op, Host: h.String(), Err: errors.New(strings.TrimSpace(string(exit.Stderr)))}
	switch exit.Code {
	case 64:
		e.Kind = plugins.Invalid
	case 65:
		e.Kind = plugins.NotFound
	case 66:
		e.Kind = plugins.Exists
	case 67:
		e.Kind = plugins.Conflict
	case 68:
		e.Kind = plugins.Unsupported
	default:
		e.Err = err
	}
	return e
}

func tenths(d time.Duration) string { return strconv.Itoa(int(d / (100 * time.Millisecond))) }

// quote makes a word of sh that means s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
