package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// Deploy brings a release to all hosts of the request, and does nothing where
// nothing differs.
func (d *Deployer) Deploy(ctx context.Context, req Request) Result {
	r := d.newRun("deploy", req)
	return r.result(ctx, func() error {
		if err := r.begin(ctx); err != nil {
			return err
		}
		defer r.close(ctx)
		if err := r.connect(ctx); err != nil {
			return err
		}
		if err := r.decide(ctx); err != nil {
			return err
		}
		if err := r.repair(ctx); err != nil {
			return err
		}
		if len(r.active()) == 0 {
			return r.prepareBalancers(ctx)
		}
		return r.deploy(ctx)
	})
}

// Plan decides what Deploy would do and touches nothing: it takes no lock and
// writes no file.
func (d *Deployer) Plan(ctx context.Context, req Request) (*Plan, error) {
	r := d.newRun("plan", req)
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	defer r.close(ctx)
	each(r.hosts, func(h *hostRun) error {
		h.err = r.dial(ctx, &h.host)
		return nil
	})
	lost := errors.Join(r.connectBalancers(ctx, r.dial)...)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if lost != nil {
		return nil, lost
	}
	if err := r.decide(ctx); err != nil {
		return nil, err
	}
	return r.plan, nil
}

// A UsageError is a mistake in what the operator wrote, found before anything
// was touched.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// begin checks and resolves all that needs no connection: every host's app,
// the secrets, the runtime.
func (r *run) begin(ctx context.Context) error {
	if len(r.hosts) == 0 {
		return &UsageError{ErrNoHosts}
	}
	for _, h := range r.hosts {
		app, err := r.appFor(h, "")
		if err != nil {
			return &UsageError{err}
		}
		h.app = app
	}
	app := r.hosts[0].app
	r.rollout, r.hooks = app.Rollout, app.Hooks
	r.pullers = app.Image.PullParallel
	r.pulls = semaphore.NewWeighted(int64(r.pullers))
	r.conceal([]string{r.login.Password})
	if r.command != "rollback" { // which needs those of the release that it goes back to
		if err := errors.Join(r.versionKnown(app), r.resolveSecrets(ctx, app), r.resolveLogins(ctx, r.hosts)); err != nil {
			return &UsageError{err}
		}
		if err := r.repository(app); err != nil {
			return err
		}
	}
	return r.parts(ctx)
}

// parts starts the runtime and picks the proxy for every host.
func (r *run) parts(ctx context.Context) error {
	app := r.hosts[0].app
	runtime, err := r.d.Runtime(ctx, app)
	if err != nil {
		return err
	}
	var p proxy.Proxy
	if app.Proxy != nil {
		if p, err = r.d.Proxy(app.Proxy.Type); err != nil {
			return &UsageError{err}
		}
	}
	for _, h := range r.hosts {
		h.runtime = runtime
		if app.Proxy != nil && app.Proxy.Hosts == "" {
			h.proxy = p
		}
	}
	return r.balancerParts()
}

// repository opens the app's repository, where it has one.
func (r *run) repository(app spec.App) (err error) {
	if app.Code == nil {
		return nil
	}
	r.source, err = source.New(source.Options{Code: *app.Code, KnownHosts: r.hosts[0].inv.SSH.KnownHosts})
	if err != nil {
		return &UsageError{err}
	}
	return nil
}

// unnamed stands for the version as long as nobody knows it.
const unnamed = "unnamed"

// appFor resolves the app file for a host.
func (r *run) appFor(h *hostRun, version string) (spec.App, error) {
	vars := maps.Clone(h.inv.Vars)
	if vars == nil {
		vars = map[string]string{}
	}
	vars["version"] = cmp.Or(version, r.req.Version, unnamed)
	return r.req.File.For(vars)
}

// versionKnown refuses an app file that asks for the version in the places
// that would have to tell it.
func (r *run) versionKnown(app spec.App) error {
	if r.req.Version != "" {
		return nil
	}
	const hint = "say what the release is called: --version"
	switch file := r.req.File; {
	case app.Code != nil && file.Uses("version", "code"):
		return file.Problem("code", "the commit is found with the version, which would be the commit", hint)
	case app.Code == nil && app.Image.Name == "":
		return file.Problem("app", "there is no commit, and no tag of an image, that could be the version", hint)
	case app.Code == nil && file.Uses("version"):
		return file.Problem("image.name", "there is no commit that could be the version", hint)
	}
	return nil
}

// resolveSecrets asks for the value of every secret of the container, once a
// run.
func (r *run) resolveSecrets(ctx context.Context, app spec.App) error {
	r.secrets = map[string]string{}
	var values []string
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(app.Container.Secrets)) {
		v, err := app.Container.Secrets[name].Resolve(ctx, r.req.File.Dir())
		if err != nil {
			errs = append(errs, r.req.File.Problem("container.secrets."+name, err.Error(), ""))
			continue
		}
		r.secrets[name] = v
		values = append(values, v)
	}
	r.conceal(values)
	return errors.Join(errs...)
}

// resolveLogins asks for the passwords of the hosts' registries, once for hosts
// that have it from the same source.
func (r *run) resolveLogins(ctx context.Context, hosts []*hostRun) error {
	known := map[string]string{}
	var errs []error
	for _, h := range hosts {
		secret := h.app.Image.Password
		if secret == nil {
			continue
		}
		source := fmt.Sprintf("%q", []any{secret.Env, secret.File, secret.Command})
		password, asked := known[source]
		if !asked {
			var err error
			if password, err = secret.Resolve(ctx, r.req.File.Dir()); err != nil {
				errs = append(errs, r.req.File.Problem("image.password", err.Error(), ""))
			}
			known[source] = password
		}
		h.auth = &plugins.Auth{Username: h.app.Image.Username, Password: password}
	}
	r.conceal(slices.Collect(maps.Values(known)))
	return errors.Join(errs...)
}

// conceal adds to the values that nobody is to see.
func (r *run) conceal(values []string) {
	r.concealed = append(r.concealed, values...)
	r.redact = newRedactor(r.concealed)
	if r.d.Redacts != nil {
		r.d.Redacts(r.redact.text)
	}
}

// decide observes every host that was reached, resolves what the release
// shall be, once for all, and makes the plan.
func (r *run) decide(ctx context.Context) error {
	commit, err := r.resolveCommit(ctx)
	if err != nil {
		return err
	}
	want, err := r.resolveRelease(ctx, commit)
	if err != nil {
		return err
	}
	state, err := r.observe(ctx)
	if err != nil {
		return err
	}
	if r.plan, err = NewPlan(want, state); err != nil {
		return err
	}
	r.arrange()
	if err := r.preflight(ctx); err != nil {
		return err
	}
	return r.adopt(ctx)
}

// preflight asks the proxies for what would keep them from being switched.
func (r *run) preflight(ctx context.Context) error {
	each(indices(r.hosts), func(i int) error {
		h, p := r.hosts[i], &r.plan.Hosts[i]
		if h.front == nil || h.front.shared || !p.Deploys() {
			return nil
		}
		p.view.Warnings, p.Err = h.proxy.Check(ctx, h.conn, h.front.proxies[0].layout)
		return nil
	})
	var errs []error
	if r.shared != nil && r.plan.Changes() {
		errs = each(indices(r.balancers), func(i int) (err error) {
			p, b := r.shared.proxies[i], &r.plan.Balancers[i]
			if b.view.Warnings, err = p.proxy.Check(ctx, p.conn, p.layout); err != nil {
				return &balancerError{p.inv.Name, errors.Is(err, plugins.Lost), err}
			}
			for _, w := range b.view.Warnings {
				r.balancerSays(p, StatusWarning, w, nil)
			}
			return nil
		})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(errs...)
}

// adopt hands every host its part of the plan.
func (r *run) adopt(ctx context.Context) error {
	r.digest = r.plan.Digest
	for i, h := range r.hosts {
		h.plan = &r.plan.Hosts[i]
		if h.plan.Instant { // green is there already: it was blue a moment ago
			h.green = h.plan.view.running(h.plan.To.ID)
		}
		if s := h.plan.view.Record.State; s != nil {
			h.remembers = *s
		} else {
			h.remembers = record.State{Schema: 1, App: h.app.Name}
		}
		h.remembers.Ports = h.plan.Ports
		switch {
		case h.state != Pending:
		case h.plan.Err != nil:
			r.drop(ctx, h, StepConnect, h.plan.Err)
		case !h.plan.Deploys():
			h.state = Skipped
			r.say(h, StepConnect, StatusSkipped, "up to date, %s serves", h.plan.From.Version)
		default:
			r.say(h, StepConnect, StatusDone, "%s", joinReasons(h.plan.Reasons))
			for _, w := range h.plan.warnings() {
				r.say(h, StepConnect, StatusWarning, "%s", w)
			}
		}
	}
	if r.command == "plan" {
		return nil
	}
	return r.tooMany()
}

// resolveCommit asks the repository, once, which commit the ref stands for:
// from the first host where code is fetched on hosts, else from here.
func (r *run) resolveCommit(ctx context.Context) (string, error) {
	for _, h := range r.hosts {
		if h.app.Code == nil {
			return "", nil
		}
		if h.err != nil {
			continue
		}
		return r.source.Resolve(ctx, h.conn)
	}
	return "", nil
}

// resolveRelease says what each host shall run. The version is the operator's,
// else the commit, else the image's tag; the digest is the registry's answer,
// or what the hosts have when the registry is not to be asked.
func (r *run) resolveRelease(ctx context.Context, commit string) (map[string]wants, error) {
	version := r.req.Version
	if version == "" && commit != "" {
		version = commit[:12]
	}
	digests := map[[2]string]string{}
	want := map[string]wants{}
	for _, h := range r.hosts {
		app, err := r.appFor(h, version)
		if err != nil {
			return nil, &UsageError{err}
		}
		h.app = app
		v := version
		if v == "" && app.Image.Name != "" {
			if _, v, err = image.Repository(app.Image.Name); err != nil {
				return nil, &UsageError{err}
			}
		}
		which := [2]string{app.Image.Name, app.Image.Archive}
		digest, known := digests[which]
		if !known && h.conn != nil && h.err == nil { // a host that was lost is not the one to ask
			if digest, err = r.resolveDigest(ctx, h); err != nil {
				return nil, err
			}
			digests[which] = digest
		}
		w := wants{release: record.Release{
			ID: r.id, Version: v, Commit: commit, Image: plugins.Image{Digest: digest},
			App: app, Secrets: mark(app.Name, r.secrets), At: r.started, By: r.d.By,
		}}
		if r.req.Force {
			w.force = "forced"
		}
		want[h.inv.Name] = w
	}
	return want, nil
}

// repair puts right on every host what an earlier run left.
func (r *run) repair(ctx context.Context) error {
	var hosts []*hostRun
	for _, h := range r.hosts {
		if h.plan != nil && h.plan.Err == nil && h.conn != nil && (h.state == Pending || h.state == Skipped) {
			hosts = append(hosts, h)
		}
	}
	each(hosts, func(h *hostRun) error {
		hctx, done := h.guard(ctx)
		defer done()
		if err := r.repairAll(hctx, h); err != nil && ctx.Err() == nil {
			r.drop(hctx, h, StepConnect, err)
		}
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.tooMany()
}

func (r *run) repairAll(ctx context.Context, h *hostRun) error {
	for _, rep := range h.plan.Repairs {
		r.say(h, StepConnect, StatusInfo, "repair: %s", rep.Text)
		if err := r.repairOne(ctx, h, rep); err != nil {
			return fmt.Errorf("%s: %w", rep.Text, err)
		}
	}
	return r.d.Store.Reap(ctx, h.conn, h.app.Name)
}

func (r *run) repairOne(ctx context.Context, h *hostRun, rep Repair) error {
	switch {
	case rep.Route != nil:
		return h.front.switchTo(ctx, change{route: proxy.Route{h.inv.Name: *rep.Route}})
	case rep.Cancel != nil:
		return h.keep(ctx, rep.Cancel.Release)
	case rep.Settle != nil:
		// Its teardown goes on: the run that held it back is dead. That it
		// is not to come back after a reboot, that run did not get to say.
		for _, p := range h.plan.view.Record.Pending {
			if p.Release == rep.Settle.ID {
				continue
			}
			if err := r.setRestart(ctx, h, p.Release, plugins.RestartNever); err != nil {
				return err
			}
		}
		h.remembers = remember(h.remembers, *rep.Settle, h.app.Keep.Releases)
		return h.lock.Write(ctx, h.remembers)
	case rep.Forget:
		h.remembers.Switching = nil
		return h.lock.Write(ctx, h.remembers)
	case rep.Container != nil:
		grace := time.Duration(0)
		if rep.Container.Status == plugins.StatusRunning {
			grace = h.app.Container.StopGrace
		}
		return r.removeContainer(ctx, h, *rep.Container, grace)
	}
	return nil
}

func indices[T any](s []T) []int {
	is := make([]int, len(s))
	for i := range s {
		is[i] = i
	}
	return is
}
