package haproxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// undoWithin bounds going back, which happens also when the caller has left.
const undoWithin = 15 * time.Second

// A turn is one change of shares.
type turn struct {
	admin
	layout  proxy.Layout
	text    string         // of the map file before
	from    data           // all members
	to      data           // all members
	holds   proxy.Releases // what the change names
	members []proxy.Member // those whose share changes or is asked for
	rested  []place        // what was in maintenance before and is not any more
}

// Switch makes the slots ready that shall get requests, writes the map file,
// changes the map that runs, and lets haproxy confirm it on the ports that
// route. Only then the slots that get nothing any more go into maintenance.
func (p *Proxy) Switch(ctx context.Context, h plugins.Host, l proxy.Layout, change proxy.Route, holds proxy.Releases) error {
	op := "switch " + l.App
	if err := validChange(l, change, holds); err != nil {
		return failed(h, op, plugins.Invalid, err)
	}
	members := slices.DeleteFunc(slices.Clone(l.Members), func(m proxy.Member) bool { _, ok := change[m.Name]; return !ok })
	seen, err := look(ctx, h, l, members)
	if err != nil {
		return err
	}
	if seen.note == (note{}) || !seen.written {
		return failed(h, op, plugins.NotFound, fmt.Errorf("%s does not exist: haproxy is not prepared for the app", mapFile(l)))
	}
	if seen.mapErr != nil {
		return failed(h, op, plugins.Invalid, fmt.Errorf("%s is broken, prepare repairs it: %w", mapFile(l), seen.mapErr))
	}
	for _, m := range members {
		if err := seen.live[m.Name].err; err != nil {
			return failed(h, op, plugins.Unavailable, fmt.Errorf("haproxy does not serve the member %s, nothing was changed: %w", m.Name, err))
		}
	}
	from := data{seen.disk, seen.holds}
	t := turn{
		admin: admin{h, seen.note.admin}, layout: l, text: seen.text,
		from: from, to: from.with(change, holds), holds: holds, members: members,
	}
	return t.run(ctx)
}

// validChange reports what in a change cannot be done.
func validChange(l proxy.Layout, change proxy.Route, holds proxy.Releases) error {
	if err := valid(l); err != nil {
		return err
	}
	var errs []error
	if !holds.Valid() {
		errs = append(errs, fmt.Errorf("the names of releases %v cannot be written", holds))
	}
	for name, share := range change {
		if !slices.ContainsFunc(l.Members, func(m proxy.Member) bool { return m.Name == name }) {
			errs = append(errs, fmt.Errorf("the app has no member %q", name))
		}
		if !share.Valid() {
			errs = append(errs, fmt.Errorf("member %s: there is no share of %d", name, int(share)))
		}
	}
	return errors.Join(errs...)
}

func (t *turn) run(ctx context.Context) error {
	var err error
	t.rested, err = t.bring(ctx, t.layout.App, t.places(func(share int) bool { return share > 0 }))
	if err != nil {
		t.rest(ctx, t.rested)
		return failed(t.host, "switch "+t.layout.App, plugins.KindOf(err), fmt.Errorf("nothing was changed: %w", err))
	}
	maybe, err := putMap(ctx, t.host, t.layout, t.text, t.to)
	if err != nil && !maybe {
		t.rest(ctx, t.rested)
		return failed(t.host, "switch "+t.layout.App, plugins.KindOf(err), fmt.Errorf("nothing was changed: %w", err))
	}
	if err == nil {
		err = t.load(ctx, t.layout, t.to, t.members, t.wake()...)
	}
	if err == nil {
		err = proxy.Unproven(ctx, prove(ctx, t.host, t.layout, t.members, proofWithin, serves(t.to.route, t.holds)))
	}
	if err != nil {
		return t.back(ctx, err)
	}
	// Confirmed: what is left is only housekeeping, which the next switch
	// repeats.
	t.rest(ctx, t.places(func(share int) bool { return share == 0 }))
	return nil
}

// places returns the slots of the changing members whose new share is wanted.
func (t *turn) places(want func(share int) bool) []place {
	var found []place
	for _, m := range t.members {
		for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
			if want(t.to.route[m.Name].Of(slot)) {
				found = append(found, place{m, slot})
			}
		}
	}
	return found
}

// wake returns the commands that tell the balancing section of members which
// were off that they serve, before its checks find out.
func (t *turn) wake() []string {
	if !(page{Layout: t.layout}).Several() || t.layout.Protocol == proxy.TCP {
		return nil
	}
	var commands []string
	for _, m := range t.members {
		if t.from.route[m.Name] == proxy.Off && t.to.route[m.Name] != proxy.Off {
			commands = append(commands, fmt.Sprintf("set server %s/%s health up", t.layout.Upstream, m.Name))
		}
	}
	return commands
}

// rest puts places into maintenance, as well as it can.
func (t *turn) rest(ctx context.Context, places []place) {
	if len(places) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminWithin)
	defer cancel()
	_, _ = t.ask(ctx, set(t.layout.App, "maint", places)...) // a slot that stays ready gets no request all the same
}

// back undoes what cause speaks against, also when ctx has ended, and returns
// cause, as unknown when going back cannot be proven either. What haproxy
// answers decides: it may never have heard of the change.
func (t *turn) back(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	op, kind := "switch "+t.layout.App, plugins.KindOf(cause)
	err := makeMap(ctx, t.host, t.layout, t.from)
	if err == nil {
		loaded := t.load(ctx, t.layout, t.from, t.members)
		if err = prove(ctx, t.host, t.layout, t.members, proofWithin, serves(t.from.route, nil)); err != nil {
			err = errors.Join(err, loaded)
		}
	}
	if err != nil {
		return failed(t.host, op, kind, fmt.Errorf("%w: %w; going back: %w", proxy.ErrUnknown, cause, err))
	}
	t.rest(ctx, t.rested)
	return failed(t.host, op, kind, fmt.Errorf("%w; all serve as before", cause))
}
