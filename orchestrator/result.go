package orchestrator

import (
	"context"
	"errors"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// result runs body and says how the run ended.
func (r *run) result(ctx context.Context, body func() error) Result {
	err := body()
	res := Result{
		Run: r.id, Command: r.command, Started: r.started, Ended: time.Now(),
		Outcome: r.outcome(ctx, err),
	}
	if p := r.plan; p != nil {
		res.Release, res.Version, res.Commit, res.Digest = p.Release, p.Version, p.Commit, p.Digest
	}
	if r.digest != "" {
		res.Digest = r.digest
	}
	for _, h := range r.hosts {
		res.Hosts = append(res.Hosts, h.summary())
	}
	if err != nil && !errors.Is(err, errTooMany) {
		res.Err = r.redact.err(err)
	}
	r.lastHook(ctx, res.Outcome)
	return res
}

// lastHook runs the hook that fits the end of a run that came to change
// something.
func (r *run) lastHook(ctx context.Context, o Outcome) {
	name, lines := "on_failure", r.hooks.OnFailure
	switch {
	case o == OutcomeNothing || r.plan == nil:
		return
	case o == OutcomeDone:
		name, lines = "after_deploy", r.hooks.AfterDeploy
	}
	ctx, cancel := orphan(ctx, hookLimit)
	defer cancel()
	if err := r.hook(ctx, name, lines); err != nil {
		r.say(nil, "", StatusWarning, "%v", err)
	}
}

// outcome is the one word for how the run ended. err is what ended it early.
func (r *run) outcome(ctx context.Context, err error) Outcome {
	if _, usage := errors.AsType[*UsageError](err); usage {
		return OutcomeUsage
	}
	if _, held := errors.AsType[*record.HeldError](err); held {
		return OutcomeLocked
	}
	n := map[HostState]int{}
	unproven := false
	green, bad, lost := 0, 0, 0 // hosts that serve the new release, and of them those that failed or were lost behind the switch
	for _, h := range r.hosts {
		n[h.state]++
		if !h.onGreen() {
			unproven = unproven || errors.Is(h.err, proxy.ErrUnproven)
			continue
		}
		green++
		if errors.Is(h.err, plugins.Lost) {
			lost++
		} else if h.err != nil {
			bad++
		}
	}
	balancer, _ := errors.AsType[*balancerError](err)
	aborted := err != nil && ctx.Err() != nil && !errors.Is(err, errTooMany)
	blue := n[Failed] + n[RolledBack] + n[Pending] + n[Ready]
	switch {
	case n[Unknown] > 0, bad > 0, err != nil && green > 0 && (blue > 0 || !aborted):
		return OutcomeMixed
	case aborted:
		return OutcomeAborted
	case r.returned != nil, unproven && green == 0:
		return OutcomeReturned
	case n[Failed]+n[RolledBack] > 0:
		return OutcomeFailed
	case n[Unreachable]+lost > 0, r.unverified.Load(), balancer != nil && balancer.unreached && green == 0:
		return OutcomeUnreachable
	case err != nil:
		return OutcomeFailed
	case n[Skipped] == len(r.hosts):
		return OutcomeNothing
	}
	return OutcomeDone
}

// OutcomeOf is the one word for an error that ended a command without a
// Result.
func OutcomeOf(err error) Outcome {
	if _, usage := errors.AsType[*UsageError](err); usage {
		return OutcomeUsage
	}
	if _, held := errors.AsType[*record.HeldError](err); held {
		return OutcomeLocked
	}
	balancer, _ := errors.AsType[*balancerError](err)
	_, unreached := errors.AsType[*unreachedError](err)
	switch {
	case unreached, balancer != nil && balancer.unreached:
		return OutcomeUnreachable
	case plugins.KindOf(err) != "": // a registry, a repository, a runtime or a host says no
		return OutcomeFailed
	}
	return OutcomeInternal
}

// An unreachedError says that a host could not be connected to.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string { return e.err.Error() }

func (e *unreachedError) Unwrap() error { return e.err }

// summary is how the run ended on the host.
func (h *hostRun) summary() HostResult {
	res := h.result
	res.Host, res.State, res.Step, res.Err = h.inv.Name, h.state, h.step, h.err
	if h.state == Unreachable && h.plan == nil {
		return res
	}
	serving := h.remembers.Active
	if h.state == Skipped && h.plan != nil {
		serving = h.plan.From
	}
	if serving != nil && h.state != Unknown {
		res.Serving, res.Version, res.Slot = serving.ID, serving.Version, serving.Slot
	}
	return res
}

// writeHistory adds the run to the history of every host that took part, as
// far as it can still be reached. err is what ended the run early.
func (r *run) writeHistory(ctx context.Context, err error) {
	aborted := ctx.Err() != nil
	ctx, cancel := orphan(ctx, 15*time.Second)
	defer cancel()
	each(r.hosts, func(h *hostRun) error {
		if h.plan == nil || h.lock == nil || !h.plan.Deploys() {
			return nil
		}
		if err := h.lock.Append(ctx, r.entry(h, aborted, err)); err != nil && h.lock.Err() == nil {
			r.warn(h, "", "the history could not be written", err)
		}
		return nil
	})
}

// entry is how the run ended on the host, for its history.
func (r *run) entry(h *hostRun, aborted bool, err error) record.Entry {
	to := h.plan.To
	e := record.Entry{
		Run: r.id, Command: r.command, Release: to.ID, Version: to.Version, Commit: to.Commit, Digest: to.Image.Digest,
		By: r.d.By, Start: r.started, End: time.Now(), Result: string(h.state),
	}
	switch {
	case h.err != nil:
		err = h.err
	case aborted && h.state == Pending:
		e.Result = string(OutcomeAborted)
	}
	if err != nil {
		e.Reason = r.redact.text(err.Error())
	}
	return e
}
