package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/nginx"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
)

// Options are the flags that commands share.
type options struct {
	streams   Streams
	file      string
	inventory string
	on        []string
	limit     string
	env       string
	set       map[string]string
	json      bool
	yes       bool
	askBecome bool
	verbose   bool
	adHoc     spec.AdHoc
}

func (o *options) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "teal.toml", "the app file")
	f.StringVarP(&o.inventory, "inventory", "i", "", "an inventory file, or a list such as web1,web2:2222, (default inventory.toml)")
	f.StringSliceVar(&o.on, "on", nil, "hosts without an inventory: user@host:port")
	f.StringVar(&o.limit, "limit", "", "only the hosts of this pattern, out of the app's")
	f.StringVarP(&o.env, "environment", "e", "", "an environment of the app file")
	f.StringToStringVar(&o.set, "set", nil, "set a variable: name=value")
	f.BoolVar(&o.json, "json", false, "print JSON, one object a line")
	f.BoolVar(&o.yes, "yes", false, "never ask: what would need an answer is an error")
	f.BoolVar(&o.askBecome, "ask-become-password", false, "ask for the password of sudo once")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "say on standard error what happens below")
	f.StringVar(&o.adHoc.App, "app", "", "the app's name, in place of an app file")
	f.StringVar(&o.adHoc.Image, "image", "", "with --app: the image")
	f.IntVar(&o.adHoc.Port, "port", 0, "with --app: the port inside the container")
	f.StringVar(&o.adHoc.HTTP, "http", "", "with --app: a path that answers when green is healthy")
	f.StringVar(&o.adHoc.Proxy, "proxy", "", "with --app: the proxy on the hosts, nginx")
	f.StringSliceVar(&o.adHoc.Listen, "listen", nil, "with --app: have the proxy listen there for the app, such as 80")
	f.StringVar(&o.adHoc.Pull, "pull", "", "with --app: always, missing or never (default always)")
}

// request reads the app file and the inventory. Every mistake in them is found
// before anything is connected to.
func (o *options) request() (orchestrator.Request, error) {
	file, fileErr := o.spec()
	hosts, invErr := o.hosts(file)
	if err := errors.Join(fileErr, invErr); err != nil {
		return orchestrator.Request{}, &orchestrator.UsageError{Err: err}
	}
	return orchestrator.Request{File: file, Hosts: hosts}, nil
}

func (o *options) spec() (*spec.File, error) {
	opts := spec.Options{Environment: o.env, Set: o.set}
	if o.adHoc.App != "" {
		return spec.FromFlags(o.adHoc, opts)
	}
	if o.adHoc.Image != "" || o.adHoc.Port != 0 || o.adHoc.HTTP != "" || o.adHoc.Proxy != "" {
		return nil, errors.New("--image, --port, --http and --proxy describe an app without an app file: name it with --app as well")
	}
	f, err := spec.Load(o.file, opts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such app file: write one, name it with -f, or say --app, --image and --on", o.file)
	}
	return f, err
}

func (o *options) hosts(file *spec.File) ([]inventory.Host, error) {
	inv, err := o.loadInventory()
	if err != nil {
		return nil, err
	}
	pattern := "all"
	if file != nil && len(o.on) == 0 {
		pattern = file.App().Hosts
	}
	if o.limit == "" {
		return inv.Select(pattern)
	}
	return inv.Select(pattern, o.limit)
}

const defaultInventory = "inventory.toml"

func (o *options) loadInventory() (*inventory.Inventory, error) {
	switch {
	case len(o.on) > 0 && o.inventory != "":
		return nil, errors.New("--on names hosts without an inventory, -i names an inventory: say one of them")
	case len(o.on) > 0:
		return inventory.AdHoc(o.on, inventory.SSH{})
	case o.inventory == "":
		inv, err := inventory.Load(defaultInventory)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: there is no such inventory: write one, name it with -i, or name hosts with --on", defaultInventory)
		}
		return inv, err
	}
	if strings.Contains(o.inventory, ",") {
		return inventory.Literal(o.inventory)
	}
	return inventory.Load(o.inventory)
}

// A session is the wired engine and what must be closed behind it.
type session struct {
	*orchestrator.Deployer
	dialer  *remote.Dialer
	runtime *loader.Plugin
}

func (s *session) Close() {
	if s.runtime != nil {
		_ = s.runtime.Close()
	}
	_ = s.dialer.Close()
}

// session wires the engine. A new proxy is a line here; so is a runtime.
func (o *options) session() *session {
	s := &session{dialer: o.dialer()}
	s.Deployer = &orchestrator.Deployer{
		Dial: func(ctx context.Context, h inventory.Host) (orchestrator.Connection, error) {
			c, err := s.dialer.Dial(ctx, h)
			if err != nil {
				return nil, err // a nil *Conn in an interface would not be nil
			}
			return c, nil
		},
		Runtime: s.startRuntime,
		Proxy: func(kind string) (proxy.Proxy, error) {
			switch kind {
			case "nginx":
				return &nginx.Proxy{}, nil
			default:
				return nil, fmt.Errorf("no proxy is called %q", kind)
			}
		},
		By:  whoAmI(),
		PID: os.Getpid(),
	}
	return s
}

// startRuntime starts the app's runtime as a plugin, once a session.
func (s *session) startRuntime(ctx context.Context, app spec.App) (plugins.Runtime, error) {
	if s.runtime != nil {
		return s.runtime.Runtime(), nil
	}
	launch := loader.Spec{Name: app.Runtime}
	if p, ok := app.Plugins[app.Runtime]; ok {
		launch.Cmd, launch.SHA256 = []string{p.Path}, p.SHA256
	} else {
		builtin, err := loader.Builtin(app.Runtime)
		if err != nil {
			return nil, &orchestrator.UsageError{Err: err}
		}
		launch = builtin
	}
	plugin, err := loader.Start(ctx, launch)
	if err != nil {
		return nil, err
	}
	s.runtime = plugin
	return plugin.Runtime(), nil
}

func (o *options) dialer() *remote.Dialer {
	d := &remote.Dialer{}
	if o.verbose {
		d.Log = slog.New(slog.NewTextHandler(o.streams.Err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if o.yes {
		return d
	}
	ask := &prompt{}
	d.Passphrase = func(ctx context.Context, file string) (string, error) {
		return ask.secret(ctx, "Passphrase of "+file)
	}
	d.Password = func(ctx context.Context, login string) (string, error) {
		return ask.secret(ctx, "Password of "+login)
	}
	if o.askBecome {
		d.BecomePassword = func(ctx context.Context, _ string) (string, error) {
			return ask.once(ctx, "Password for sudo")
		}
	}
	return d
}

// whoAmI is the operator as hosts remember them: user@machine.
func whoAmI() string {
	name := os.Getenv("TEAL_BY")
	if name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown"
	}
	return name + "@" + machine
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
