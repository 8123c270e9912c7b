package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/haproxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/nginx"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins/loader"
)

// Options are the flags that commands share.
type options struct {
	streams   Streams
	flags     *pflag.FlagSet
	byName    bool // the command needs no more of an app than its name
	file      string
	inventory string
	on        []string
	limit     string
	env       string
	set       assignments
	canary    []string
	json      bool
	yes       bool
	askBecome bool
	verbose   bool
	adHoc     spec.AdHoc
	app       *spec.File // what complete has read
	prompt    prompt
	redact    atomic.Pointer[func(string) string] // what the run blacks secrets out with; nil: there are none yet
}

// bind adds the flags that every command has.
func (o *options) bind(cmd *cobra.Command) {
	o.set, o.flags = assignments{}, cmd.Flags()
	under(cmd, headingWhere, func(f *pflag.FlagSet) {
		f.StringVarP(&o.file, "file", "f", spec.DefaultPath, "the app `file`")
		f.StringVarP(&o.inventory, "inventory", "i", "", "an inventory `file`, or a list with a comma as web1,web2:2222 (default \""+defaultInventory+"\")")
		f.StringSliceVar(&o.on, "on", nil, "a host without an inventory, as `user@host:port`; several with commas")
		f.StringVar(&o.limit, "limit", "", "only the hosts of this `pattern`, out of the app's")
		f.StringVarP(&o.env, "environment", "e", "", "an environment of the app file, such as `staging`")
		f.Var(o.set, "set", "set a variable for ${name} in the app file, as `name=value`")
	})
	under(cmd, headingCommon, func(f *pflag.FlagSet) {
		f.BoolVar(&o.json, "json", false, "print JSON, one object a line")
		f.BoolVar(&o.yes, "yes", false, "never ask: what would need an answer is an error")
		f.BoolVar(&o.askBecome, "ask-become-password", false, "ask for the password of sudo once")
		f.BoolVarP(&o.verbose, "verbose", "v", false, "say on standard error what happens below")
	})
}

// bindName adds --app to a command that goes by what hosts remember.
func (o *options) bindName(cmd *cobra.Command) {
	o.byName = true
	under(cmd, headingAdHoc, func(f *pflag.FlagSet) {
		f.StringVar(&o.adHoc.App, "app", "", "the app's `name`: the hosts remember the rest")
		f.StringVar(&o.adHoc.Runtime, "runtime", "", runtimeUsage)
	})
}

// bindApp adds the flags that describe an app, and takes what stands behind
// "--" for the container's command.
func (o *options) bindApp(cmd *cobra.Command) {
	cmd.Use += " [flags] [-- command]"
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch cmd.ArgsLenAtDash() {
		case -1:
			return noArguments(cmd, args)
		case 0:
			o.adHoc.Command = args
			return nil
		default:
			return noArguments(cmd, args[:cmd.ArgsLenAtDash()])
		}
	}
	a := &o.adHoc
	under(cmd, headingAdHoc, func(f *pflag.FlagSet) {
		f.StringVar(&a.App, "app", "", "the app's `name`; a command behind -- takes the place of the image's own")
		f.StringVar(&a.Runtime, "runtime", "", runtimeUsage)
		f.StringVar(&a.Image, "image", "", "the image, such as `registry/shop:42`")
		f.StringVar(&a.Pull, "pull", "", "`when` to pull it: always, missing or never, or upload for one of this machine (default \"always\")")
		f.IntVar(&a.Port, "port", 0, "the `port` inside the container")
		f.StringVar(&a.Protocol, "protocol", "", "`what` the app speaks there: http, grpc or tcp (default \"http\")")
		f.IntVar(&a.Replicas, "replicas", 0, "`number` of containers on each host, 1 to 64 (default 1)")
		f.StringArrayVar(&a.Env, "env", nil, "set an environment variable of the container, as `NAME=value`")
		f.StringArrayVar(&a.Volumes, "volume", nil, "mount a volume, or a folder of the host, as `source:target` or source:target:ro")
		f.StringVar(&a.Memory, "memory", "", "how much memory the container may have, such as `512m`")
		f.StringVar(&a.HTTP, "http", "", "a `path` that answers when green is healthy")
		f.StringVar(&a.Proxy, "proxy", "", "`kind` of the proxy on the hosts: nginx or haproxy")
		f.StringVar(&a.Upstream, "upstream", "", "`name` of the nginx upstream or the HAProxy backend (default: the app's)")
		f.StringSliceVar(&a.Listen, "listen", nil, "have the proxy listen for the app at a `port` or address:port")
		f.StringSliceVar(&a.Names, "server-name", nil, "with --listen: only for requests to this `host`")
		f.StringVar(&a.Verify, "verify", "", "a `URL` to ask through the proxy after the switch")
	})
}

// complete reads the app file and the inventory and puts into req what they
// say. Every mistake in them is found before anything is connected to.
func (o *options) complete(req *orchestrator.Request) error {
	file, fileErr := o.spec()
	req.File, o.app = file, file
	inv, invErr := o.loadInventory()
	if invErr == nil {
		invErr = o.pick(inv, req)
	}
	if err := errors.Join(fileErr, invErr); err != nil {
		return &orchestrator.UsageError{Err: err}
	}
	return nil
}

func (o *options) spec() (*spec.File, error) {
	opts := spec.Options{Environment: o.env, Set: o.set, Canary: o.canary}
	switch {
	case o.given("app") && o.given("file"):
		return nil, errors.New("--app describes an app without an app file, -f names one: say one of them")
	case o.given("app") && o.byName:
		for _, flag := range []string{"environment", "set"} {
			if o.given(flag) {
				return nil, fmt.Errorf("--%s needs an app file: with --app the hosts remember what the app is", flag)
			}
		}
		return spec.Named(o.adHoc.App, o.adHoc.Runtime)
	case o.given("app"):
		switch { // 0 would be taken for a flag that was not given
		case o.given("port") && o.adHoc.Port == 0:
			return nil, errors.New("--port: 0 is not a port between 1 and 65535")
		case o.given("replicas") && o.adHoc.Replicas == 0:
			return nil, errors.New("--replicas: 0 is not a number between 1 and 64")
		}
		return spec.FromFlags(o.adHoc, opts)
	}
	if err := o.needApp(); err != nil {
		return nil, err
	}
	f, err := spec.Load(o.file, opts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such app file: write one, name it with -f, or describe the app with --app", o.file)
	}
	return f, err
}

func (o *options) given(flag string) bool { return o.flags.Changed(flag) }

// needApp refuses flags that describe an app when none is named.
func (o *options) needApp() error {
	var given []string
	o.flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed && slices.Equal(f.Annotations[headingKey], []string{headingAdHoc}) {
			given = append(given, "--"+f.Name)
		}
	})
	if len(o.adHoc.Command) > 0 {
		given = append(given, "a command behind --")
	}
	switch len(given) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s describes an app without an app file: name the app with --app, or leave it out", given[0])
	}
	return fmt.Errorf("%s describe an app without an app file: name the app with --app, or leave them out", list(given))
}

// pick fills in the hosts of the app, out of these what --limit says, and its
// load balancers. A file that is wrong itself is nil.
func (o *options) pick(inv *inventory.Inventory, req *orchestrator.Request) error {
	if len(inv.Hosts()) == 0 {
		return fmt.Errorf("%s: there is no host in it", cmp.Or(o.inventory, defaultInventory))
	}
	pattern := "all"
	if req.File != nil && len(o.on) == 0 {
		pattern = req.File.App().Hosts
	}
	hosts, err := inv.Select(pattern)
	if err != nil {
		err = req.File.Problem("hosts", err.Error(), "") // "all" selects something
	} else {
		req.Hosts, err = o.limited(inv, pattern, hosts)
	}
	if req.File == nil {
		return err
	}
	if len(o.on) == 0 { // which names some hosts for once, and not all that the app has
		for _, h := range hosts {
			req.Servers = append(req.Servers, h.Name)
		}
	}
	var balancerErr error
	req.Balancers, balancerErr = o.balancers(inv, req.File)
	return errors.Join(err, balancerErr)
}

// limited is what --limit leaves of the app's hosts.
func (o *options) limited(inv *inventory.Inventory, pattern string, hosts []inventory.Host) ([]inventory.Host, error) {
	if o.limit == "" {
		return hosts, nil
	}
	if _, err := inv.Select(o.limit); err != nil {
		return nil, fmt.Errorf("--limit: %w", err)
	}
	limited, err := inv.Select(pattern, o.limit)
	if err != nil {
		return nil, fmt.Errorf("--limit: %q leaves none of the hosts of %q, which are %s", o.limit, pattern, few(hosts))
	}
	return limited, nil
}

// balancers are the hosts of the app's load balancers; none where each host
// has its own proxy.
func (o *options) balancers(inv *inventory.Inventory, file *spec.File) ([]inventory.Host, error) {
	p := file.App().Proxy
	if p == nil || p.Hosts == "" {
		return nil, nil
	}
	hosts, err := inv.Select(p.Hosts)
	if err == nil {
		return hosts, nil
	}
	hint := ""
	if len(o.on) > 0 {
		hint = "--on names hosts of the app and no load balancers: say -i and --limit in place of it"
	}
	return nil, file.Problem("proxy.hosts", err.Error(), hint)
}

// few names the first hosts.
func few(hosts []inventory.Host) string {
	const most = 5
	var names []string
	for _, h := range hosts[:min(len(hosts), most)] {
		names = append(names, h.Name)
	}
	if more := len(hosts) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return list(names)
}

const defaultInventory = "inventory.toml"

func (o *options) loadInventory() (*inventory.Inventory, error) {
	switch {
	case len(o.on) > 0 && o.inventory != "":
		return nil, errors.New("--on names hosts without an inventory, -i names an inventory: say one of them")
	case len(o.on) > 0:
		return inventory.AdHoc(o.on, inventory.SSH{})
	case strings.Contains(o.inventory, ","):
		return inventory.Literal(o.inventory)
	}
	path := cmp.Or(o.inventory, defaultInventory)
	inv, err := inventory.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such inventory: write one, name it with -i, or name hosts with --on", path)
	}
	return inv, err
}

// A session is the wired engine and what must be closed behind it.
type session struct {
	*orchestrator.Deployer
	file    *spec.File
	say     func(text string)
	log     *slog.Logger // nil: nothing below is told
	dialer  *remote.Dialer
	runtime *loader.Plugin
}

func (s *session) Close() {
	if s.runtime != nil {
		_ = s.runtime.Close()
	}
	_ = s.dialer.Close()
}

// session wires the engine. A new proxy is a line here.
func (o *options) session() *session {
	s := &session{file: o.app, log: o.logger(), dialer: o.dialer()}
	s.say = func(text string) { o.prompt.say(o.streams.Err, text) }
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
			case "haproxy":
				return &haproxy.Proxy{}, nil
			default:
				return nil, fmt.Errorf("no proxy is called %q", kind)
			}
		},
		By:      whoAmI(),
		PID:     os.Getpid(),
		Redacts: func(redact func(string) string) { o.redact.Store(&redact) },
	}
	if runs, err := display.JournalDir(os.Getenv); err == nil { // where there is no home, nothing is remembered
		s.Images = filepath.Join(filepath.Dir(runs), "images")
	}
	return s
}

// logger writes what happens below to standard error, when that is wanted.
func (o *options) logger() *slog.Logger {
	if !o.verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(o.streams.Err, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { // before it is quoted
			if redact := o.redact.Load(); redact != nil && (a.Value.Kind() == slog.KindString || a.Value.Kind() == slog.KindAny) {
				a.Value = slog.StringValue((*redact)(a.Value.String()))
			}
			return a
		},
	}))
}

func (o *options) dialer() *remote.Dialer {
	d := &remote.Dialer{Log: o.logger()}
	if o.yes {
		return d
	}
	ask := &o.prompt
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
