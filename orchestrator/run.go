package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A run is one deployment or rollback from its start to its result.
type run struct {
	d       *Deployer
	req     Request
	id      string
	command string
	started time.Time

	rollout spec.Rollout
	hooks   spec.Hooks
	hosts   []*hostRun // in the inventory's order
	// balancers are the hosts of the load balancers, and shared is what they
	// decide together; none where each host has its own proxy.
	balancers []*host
	shared    *front
	plan      *Plan
	secrets   map[string]string // values by name, of the environment of containers
	source    *source.Source    // nil: the app has no code of its own
	concealed []string          // what nobody is to see
	redact    redactor          // of what is concealed

	pullers int                 // how many hosts pull at the same time
	pulls   *semaphore.Weighted // their turns
	login   plugins.Auth        // of the hosts' engines, for uploads
	uploads map[image.Local]*upload

	mu       sync.Mutex // of Emit, and of digest
	digest   string     // that all hosts must have
	returned error      // why the run took back a switch, or a share of it, that had succeeded
	dropped  dropped

	unverified atomic.Bool // a load balancer was lost behind its switch
}

// A hostRun is how a run stands on one host.
type hostRun struct {
	host
	plan  *HostPlan
	state HostState
	step  Step  // that failed
	err   error // why

	front    *front        // nil for an app without a proxy
	auth     *plugins.Auth // for the registry
	image    plugins.Image
	codeDir  string
	green    []plugins.Container // of the release to be, one a replica
	sick     int                 // which of them failed
	made     bool                // green was made by this run
	move     *move               // announced on the host, and not yet taken back
	released bool                // blue's teardown goes on by itself
	result   HostResult
}

// active reports whether the host still takes part.
func (h *hostRun) active() bool {
	if h.err != nil {
		return false
	}
	switch h.state {
	case Pending, Ready, Switched, Verified:
		return h.plan == nil || h.plan.Deploys()
	default:
		return false
	}
}

func (r *run) active() []*hostRun {
	var active []*hostRun
	for _, h := range r.hosts {
		if h.active() {
			active = append(active, h)
		}
	}
	return active
}

// emit hands an event on, with secrets blacked out.
func (r *run) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.d.Emit == nil {
		return
	}
	e.Time, e.Run = time.Now(), r.id
	e.Text, e.Err = r.redact.text(e.Text), r.redact.err(e.Err)
	r.d.Emit(e)
}

func (r *run) say(h *hostRun, step Step, status Status, format string, args ...any) {
	e := Event{Step: step, Status: status, Text: fmt.Sprintf(format, args...)}
	if h != nil {
		e.Host = h.inv.Name
	}
	r.emit(e)
}

// warn says what went wrong on a host and does not stop it.
func (r *run) warn(h *hostRun, step Step, text string, err error) {
	r.emit(Event{Host: h.inv.Name, Step: step, Status: StatusWarning, Text: text, Err: err})
}

// carryOut does a stage on every host that takes part, and drops the hosts
// that fail. When too many have failed the others are told to end. It returns
// an error when the run must not go on.
func (r *run) carryOut(ctx context.Context, s stage) error {
	hosts := r.active()
	if len(hosts) == 0 {
		return nil
	}
	if s.once != nil {
		err := s.once(ctx)
		if ctx.Err() != nil && !s.through {
			return context.Cause(ctx)
		}
		return err
	}
	if s.first {
		hosts = hosts[:1]
	}
	width := atOnce
	if s.waits {
		width = len(hosts)
	}
	sctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	eachOf(width, hosts, func(h *hostRun) error {
		hctx, done := h.guard(sctx)
		defer done()
		if err := s.do(hctx, h); err != nil && (s.through || sctx.Err() == nil) { // a host that was told to end did not fail
			r.drop(hctx, h, s.step, err)
		}
		if h.err == nil {
			return nil
		}
		if err := r.tooMany(); err == nil {
			r.goBackAlone(ctx, h)
		} else if !s.through {
			stop(err)
		}
		return nil
	})
	if ctx.Err() != nil && !s.through {
		return context.Cause(ctx)
	}
	if s.first && hosts[0].err != nil {
		return fmt.Errorf("%w: %s does for all hosts what is done once", errTooMany, hosts[0].inv.Name)
	}
	return r.tooMany()
}

// guard returns a context that also ends when the host's connection or its
// lock is lost.
func (h *host) guard(ctx context.Context) (context.Context, func()) {
	gctx, cancel := context.WithCancelCause(ctx)
	ended, lost, lock := h.conn.Done(), make(<-chan struct{}), h.lock
	if lock != nil {
		lost = lock.Lost()
	}
	go func() {
		select {
		case <-gctx.Done():
			return
		case <-ended:
		case <-lost:
		}
		why := errors.New("the connection is lost")
		if lock != nil && lock.Err() != nil { // a lock that is lost says why, and ends the connection
			why = lock.Err()
		}
		cancel(&plugins.Error{Host: h.inv.Name, Kind: plugins.Lost, Err: why})
	}()
	return gctx, func() { cancel(nil) }
}

// deploy carries the plan out.
func (r *run) deploy(ctx context.Context) (err error) {
	defer func() { r.writeHistory(ctx, err) }()
	if err := r.hook(ctx, "before_deploy", r.hooks.BeforeDeploy); err != nil {
		return err
	}
	defer r.removeGreen(ctx, true)
	for _, s := range r.prepare() {
		if err := r.carryOut(ctx, s); err != nil {
			return err
		}
	}
	if len(r.active()) == 0 { // those that are left are up to date
		return nil
	}
	r.removeGreen(ctx, false)
	if err := r.switchAll(ctx); err != nil {
		return err
	}
	if err := r.hook(ctx, "after_switch", r.hooks.AfterSwitch); err != nil {
		r.say(nil, StepSwitch, StatusWarning, "%v", err)
	}
	for _, s := range r.settle() {
		if err := r.carryOut(ctx, s); err != nil {
			return r.settleFailed(ctx, err)
		}
	}
	for _, h := range r.active() {
		h.state = Done
	}
	return nil
}

// app is the app as the first host has it: what concerns all hosts is alike.
func (r *run) app() spec.App { return r.hosts[0].app }

func (r *run) owner() record.Owner {
	return record.Owner{By: r.d.By, PID: r.d.PID, Run: r.id, Command: r.command, Since: r.started}
}

// connect reaches every host and takes its lock. All locks or none.
func (r *run) connect(ctx context.Context) error {
	errs := each(r.hosts, func(h *hostRun) error {
		r.say(h, StepConnect, StatusStarted, "")
		err := r.take(ctx, &h.host)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case h.conn == nil:
			r.note(h, Unreachable, StepConnect, err)
			return nil
		}
		if held := (*record.HeldError)(nil); errors.As(err, &held) {
			return err
		}
		r.drop(ctx, h, StepConnect, err)
		return nil
	})
	errs = append(errs, r.connectBalancers(ctx, r.take)...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.tooMany()
}

// take connects to a host and takes its lock.
func (r *run) take(ctx context.Context, h *host) error {
	if err := r.dial(ctx, h); err != nil {
		return err
	}
	var err error
	h.lock, err = r.d.Store.Acquire(ctx, h.conn, h.remembersAs(), r.owner())
	return err
}

func (r *run) dial(ctx context.Context, h *host) error {
	conn, err := r.d.Dial(ctx, h.inv)
	if err == nil {
		h.conn = conn
	}
	return err
}

// close frees the locks and closes the connections.
func (r *run) close(ctx context.Context) {
	ctx, cancel := orphan(ctx, 10*time.Second)
	defer cancel()
	if r.source != nil {
		_ = r.source.Close() // it only read
	}
	for _, u := range r.uploads {
		_ = u.Close() // likewise
	}
	hosts := slices.Clone(r.balancers)
	for _, h := range r.hosts {
		hosts = append(hosts, &h.host)
	}
	each(hosts, func(h *host) error {
		if h.lock != nil {
			_ = h.lock.Release(ctx) // a lock dies with its connection anyway
		}
		if h.conn != nil {
			_ = h.conn.Close()
		}
		return nil
	})
}

// newRun starts a run on the request's hosts.
func (d *Deployer) newRun(command string, req Request) *run {
	now := time.Now()
	r := &run{d: d, req: req, id: cmp.Or(req.Run, NewRunID(now)), command: command, started: now}
	r.login, r.uploads = image.NewLogin(), map[image.Local]*upload{}
	for _, h := range req.Hosts {
		r.hosts = append(r.hosts, &hostRun{host: host{inv: h, named: req.File.NameOnly()}, state: Pending})
	}
	for _, h := range req.Balancers {
		r.balancers = append(r.balancers, &host{inv: h})
	}
	return r
}
