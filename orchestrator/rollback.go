package orchestrator

import (
	"context"
	"errors"
	"fmt"

	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// Rollback brings back an earlier release: the one before, or the one of that
// id, version or commit. While its containers still run, it cancels their
// teardown and switches back, and nothing else. Later it makes the containers
// again as they were: image by digest, code by commit, with the environment,
// mounts and command of that release. Only secrets are asked for again: no
// host remembers them.
func (d *Deployer) Rollback(ctx context.Context, req Request, release string) Result {
	r := d.newRun("rollback", req)
	return r.result(ctx, func() error {
		if err := r.begin(ctx); err != nil {
			return err
		}
		defer r.close(ctx)
		if err := r.connect(ctx); err != nil {
			return err
		}
		if err := r.decideRollback(ctx, release); err != nil {
			return err
		}
		if err := r.repair(ctx); err != nil {
			return err
		}
		return r.deploy(ctx)
	})
}

// decideRollback plans a return on every host.
func (r *run) decideRollback(ctx context.Context, release string) error {
	state, err := r.observe(ctx)
	if err != nil {
		return err
	}
	r.plan = &Plan{}
	var made []*hostRun // hosts on which the release is made again
	for i, v := range state.Hosts {
		p, err := planReturn(v, release, r.id)
		if err != nil {
			return &UsageError{err}
		}
		if v.App.Proxy != nil && v.App.Proxy.Hosts != "" && r.shared == nil {
			return &UsageError{fmt.Errorf("the load balancers of %s stand in its app file: name it with -f", v.App.Name)}
		}
		r.plan.Hosts = append(r.plan.Hosts, p)
		if p.Err == nil {
			to := p.To
			if r.plan.Version != "" && r.plan.Version != to.Version {
				return &UsageError{fmt.Errorf("the hosts do not agree on what came before: %s would go back to %s, others to %s: name the release",
					v.Host.Name, to.Version, r.plan.Version)}
			}
			r.plan.Release, r.plan.Version, r.plan.Commit, r.plan.Digest = to.ID, to.Version, to.Commit, to.Image.Digest
			r.hosts[i].app = to.App
			if !p.Instant {
				made = append(made, r.hosts[i])
			}
		}
	}
	if err := r.resolveForgotten(ctx, made); err != nil {
		return err
	}
	if err := r.plan.planBalancers(state); err != nil {
		return err
	}
	r.arrange()
	return r.adopt(ctx)
}

// resolveForgotten asks for what no host remembers, for those on which a
// release is made again.
func (r *run) resolveForgotten(ctx context.Context, made []*hostRun) error {
	if len(made) == 0 {
		return nil
	}
	app := made[0].app
	if err := errors.Join(r.resolveSecrets(ctx, app), r.resolveLogins(ctx, made)); err != nil {
		return &UsageError{err}
	}
	return r.repository(app)
}

// planReturn plans a return on one host. It is pure.
func planReturn(v HostView, release, run string) (HostPlan, error) {
	p := HostPlan{Host: v.Host, view: v, Err: v.Err}
	if p.Err == nil {
		p.Err = trustworthy(v)
	}
	if p.Err != nil {
		return p, nil
	}
	p.From = v.serving()
	to := earlier(v, release, p.From)
	switch {
	case to == nil && release == "":
		return p, fmt.Errorf("%s remembers no earlier release", v.Host.Name)
	case to == nil:
		return p, fmt.Errorf("%s remembers no release %q: it has %s", v.Host.Name, release, known(v.Record.State))
	case p.From != nil && to.ID == p.From.ID:
		return p, fmt.Errorf("%s serves %s already", v.Host.Name, to.Version)
	}
	p.To, p.Ports = *to, v.Record.State.Ports
	if v.App.Proxy != nil { // it is today's proxy that is to switch
		p.To.App.Proxy = v.App.Proxy
	}
	if p.Err = p.locate(p.To.App); p.Err != nil {
		return p, nil
	}
	p.Reasons = []string{"back to " + to.Version}
	if w := v.pending(to.Slot); w != nil && w.Release == to.ID && len(v.running(to.ID)) >= to.App.Container.Replicas {
		p.Instant = true
	} else {
		p.To.ID, p.To.Slot = run, freeSlot(v, p.From)
		if to.App.Image.Pull != pullUpload { // an uploaded one is looked for by its reference first
			p.To.App.Image.Name, p.To.App.Image.Pull = to.Image.Reference, string(plugins.PullMissing)
		}
		p.Waits = v.pending(p.To.Slot)
	}
	p.Repairs = repairs(v, p.From)
	return p, nil
}

// earlier is the release to go back to: the one that is being torn down, else
// the newest one kept.
func earlier(v HostView, release string, serving *record.Release) *record.Release {
	s := v.Record.State
	if s == nil {
		return nil
	}
	if release != "" {
		if serving != nil && (serving.ID == release || serving.Version == release) {
			return serving
		}
		return kept(s, release)
	}
	for i := range s.Kept {
		if serving == nil || s.Kept[i].ID != serving.ID {
			return &s.Kept[i]
		}
	}
	return nil
}

func known(s *record.State) string {
	if s == nil || len(s.Kept) == 0 {
		return "none"
	}
	text := ""
	for _, r := range s.Kept {
		if text != "" {
			text += ", "
		}
		text += r.Version
	}
	return text
}
