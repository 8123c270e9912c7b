package spec

import (
	"maps"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// AdHoc is an app that is described by flags alone. An empty field is a flag
// that was not given.
type AdHoc struct {
	App      string
	Image    string
	Pull     string
	Runtime  string
	Port     int
	Protocol string
	Replicas int
	Command  []string
	Env      []string // NAME=value
	Volumes  []string
	Memory   string
	HTTP     string // path of a check
	Proxy    string // type
	Upstream string
	Listen   []string
	Names    []string
	Verify   string // URL
}

// FromFlags makes a File of flags. They are checked in the same way as a file
// is, and problems name the flag.
func FromFlags(flags AdHoc, opts Options) (*File, error) {
	f, err := newFile("", opts)
	if err != nil {
		return nil, err
	}
	var problems tomlfile.Problems
	if opts.Environment != "" {
		problems = append(problems, tomlfile.Problem{
			Key: "--environment", Message: "needs an app file", Hint: "leave it out, or describe the app in " + DefaultPath,
		})
	}
	tree, found := flags.tree()
	f.doc = tomlfile.Values(tree, flagOf)
	problems = append(problems, found...)
	_, found = f.read(f.doc, nil)
	if err := append(problems, found...).Err(); err != nil {
		return nil, err
	}
	return f, nil
}

// Named makes a File of which only the app's name is known, and its runtime
// when that is not "". It is enough for commands that go by what the hosts
// remember of the app.
func Named(app, runtime string) (*File, error) {
	tree, _ := AdHoc{App: app, Runtime: runtime}.tree() // which complains of --env alone
	f := &File{doc: tomlfile.Values(tree, flagOf), named: true}
	if _, problems := f.read(f.doc, nil); len(problems) > 0 {
		return nil, problems.Err()
	}
	return f, nil
}

// NameOnly reports whether the file was made by Named.
func (f *File) NameOnly() bool { return f.named }

// tree returns the flags as an app file would have them.
func (a AdHoc) tree() (map[string]any, tomlfile.Problems) {
	tree := map[string]any{}
	put := func(key string, value any, given bool) {
		if !given {
			return
		}
		table := tree
		names := strings.Split(key, ".")
		for _, name := range names[:len(names)-1] {
			below, ok := table[name].(map[string]any)
			if !ok {
				below = map[string]any{}
				table[name] = below
			}
			table = below
		}
		table[names[len(names)-1]] = value
	}
	text := func(key, value string) { put(key, value, value != "") }
	list := func(key string, values []string) {
		out := make([]any, len(values))
		for i, v := range values {
			out[i] = v
		}
		put(key, out, len(values) > 0)
	}
	text("app", a.App)
	text("runtime", a.Runtime)
	text("image.name", a.Image)
	text("image.pull", a.Pull)
	put("container.port", int64(a.Port), a.Port != 0)
	text("container.protocol", a.Protocol)
	put("container.replicas", int64(a.Replicas), a.Replicas != 0)
	list("container.command", a.Command)
	list("container.volumes", a.Volumes)
	text("container.memory", a.Memory)
	put("test.checks", []any{map[string]any{"http": a.HTTP}}, a.HTTP != "")
	text("proxy.type", a.Proxy)
	text("proxy.upstream", a.Upstream)
	list("proxy.site.listen", a.Listen)
	list("proxy.site.names", a.Names)
	text("proxy.verify.http", a.Verify)
	env, problems := a.env()
	put("container.env", env, len(env) > 0)
	return tree, problems
}

func (a AdHoc) env() (map[string]any, tomlfile.Problems) {
	env := map[string]any{}
	var problems tomlfile.Problems
	fail := func(message, hint string) {
		problems = append(problems, tomlfile.Problem{Key: "--env", Message: message, Hint: hint})
	}
	for _, entry := range a.Env {
		name, value, ok := strings.Cut(entry, "=")
		switch _, twice := env[name]; {
		case !ok:
			// What was given may be a secret without its name.
			fail("has no '='", "write NAME=value")
		case twice:
			fail("names "+tomlfile.Format(name)+" twice", "keep one of the two")
		default:
			env[name] = value
		}
	}
	return env, problems
}

// flagOf returns the flag that stands for a key of an app file.
func flagOf(key string) string {
	flags := map[string]string{
		"app":                "--app",
		"runtime":            "--runtime",
		"image":              "--image",
		"image.pull":         "--pull",
		"container.port":     "--port",
		"container.command":  "the command",
		"container.env":      "--env",
		"container.protocol": "--protocol",
		"container.replicas": "--replicas",
		"container.volumes":  "--volume",
		"container.memory":   "--memory",
		"test.checks":        "--http",
		"proxy":              "--proxy",
		"proxy.upstream":     "--upstream",
		"proxy.site":         "--listen",
		"proxy.site.names":   "--server-name",
		"proxy.verify":       "--verify",
	}
	longest := ""
	for _, prefix := range slices.Collect(maps.Keys(flags)) {
		if within(key, []string{prefix}) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	if longest == "" {
		return key
	}
	return flags[longest]
}
