package orchestrator

import (
	"context"
	"errors"
	"time"

	"github.com/teal-deploy/teal/orchestrator/record"
)

// result runs body and says how the run ended.
func (r *run) result(ctx context.Context, body func() error) Result {
	err := r.redact.err(body())
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
	if res.Outcome != OutcomeDone && res.Outcome != OutcomeNothing && r.plan != nil {
		hctx, cancel := orphan(ctx, hookLimit)
		defer cancel()
		if herr := r.hook(hctx, "on_failure", r.hooks.OnFailure); herr != nil {
			r.say(nil, "", StatusWarning, "%v", herr)
		}
	} else if res.Outcome == OutcomeDone {
		if herr := r.hook(ctx, "after_deploy", r.hooks.AfterDeploy); herr != nil {
			r.say(nil, "", StatusWarning, "%v", herr)
		}
	}
	return res
}

// outcome is the one word for how the run ended.
func (r *run) outcome(ctx context.Context, err error) Outcome {
	var usage *UsageError
	var held *record.HeldError
	switch {
	case errors.As(err, &usage):
		return OutcomeUsage
	case errors.As(err, &held):
		return OutcomeLocked
	case ctx.Err() != nil:
		return OutcomeAborted
	}
	n := map[HostState]int{}
	for _, h := range r.hosts {
		n[h.state]++
		if h.state == Switched && h.err != nil {
			n[Unreachable]++
		}
	}
	switch stays := n[Switched] + n[Verified] + n[Done]; {
	case n[Unknown] > 0, r.returned != nil && stays > 0, err != nil && stays > 0 && n[Unreachable] == 0:
		return OutcomeMixed
	case r.returned != nil && n[RolledBack] > 0 && r.settled():
		return OutcomeReturned
	case n[Failed]+n[RolledBack] > 0:
		return OutcomeFailed
	case n[Unreachable] > 0:
		return OutcomeUnreachable
	case err != nil:
		return OutcomeFailed
	case n[Skipped] == len(r.hosts):
		return OutcomeNothing
	}
	return OutcomeDone
}

// settled reports whether every host that took part had switched, so that it
// was the verification that failed and not a switch.
func (r *run) settled() bool {
	for _, h := range r.hosts {
		if h.state == Failed && h.result.SwitchAt.IsZero() {
			return false
		}
	}
	return true
}

// summary is how the run ended on the host.
func (h *hostRun) summary() HostResult {
	res := h.result
	res.Host, res.State, res.Step, res.Err = h.inv.Name, h.state, h.step, h.err
	res.Version = ""
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
// far as it can still be reached.
func (r *run) writeHistory(ctx context.Context) {
	ctx, cancel := orphan(ctx, 15*time.Second)
	defer cancel()
	each(r.hosts, func(h *hostRun) error {
		if h.plan == nil || h.lock == nil || !h.plan.Deploys() {
			return nil
		}
		to := h.plan.To
		e := record.Entry{
			Run: r.id, Command: r.command, Release: to.ID, Version: to.Version, Commit: to.Commit, Digest: to.Image.Digest,
			By: r.d.By, Start: r.started, End: time.Now(), Result: string(h.state),
		}
		if h.err != nil {
			e.Reason = r.redact.text(h.err.Error())
		} else if ctx.Err() == nil && h.state == Pending {
			e.Result = "aborted"
		}
		if err := h.lock.Append(ctx, e); err != nil && h.state != Unreachable && h.state != Unknown {
			r.emit(Event{Host: h.inv.Name, Status: StatusWarning, Text: "the history could not be written", Err: err})
		}
		return nil
	})
}
