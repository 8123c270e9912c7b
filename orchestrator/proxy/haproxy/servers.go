package haproxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// readyWithin is how long the replicas of a slot may take to be seen up: two
// intervals of their checks and the checks themselves.
const readyWithin = 5 * time.Second

// A place is a slot of a member, in the sections that teal writes.
type place struct {
	member proxy.Member
	slot   proxy.Slot
}

// servers returns the names of a place's replicas for the admin socket.
func (p place) servers(app string) []string {
	addrs := p.member.Blue
	if p.slot == proxy.Green {
		addrs = p.member.Green
	}
	var names []string
	for i := range addrs {
		names = append(names, fmt.Sprintf("%s/%s:%d", section(app, p.member.Name, p.slot), p.slot, i))
	}
	return names
}

// set returns the commands that put the replicas of places into a state:
// ready, or maint, in which requests in flight go on and new ones do not come.
// What stands in for the replica elsewhere follows it.
func set(app, state string, places []place) []string {
	var commands []string
	for _, p := range places {
		for _, s := range p.servers(app) {
			commands = append(commands, fmt.Sprintf("set server %s state %s", s, state))
		}
	}
	return commands
}

// A condition is what haproxy knows of a replica.
type condition struct {
	up    bool
	maint bool // by command
}

// bring makes the replicas of places ready and waits until they are seen up.
// When one replica of each is up at the end of the wait that is enough: it is
// better to go back to a slot that lacks one than not to go back. It returns
// the places that were in maintenance before.
func (a admin) bring(ctx context.Context, app string, places []place) (rested []place, err error) {
	if len(places) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("for more than %s", readyWithin))
	defer cancel()
	// The state before, the change and the state after come in one answer.
	said, err := a.ask(ctx, slices.Concat([]string{showState}, set(app, "ready", places), []string{showState})...)
	if err != nil {
		return nil, err
	}
	_, said, _ = strings.Cut(said, stateHeader)
	former, latter, _ := strings.Cut(said, stateHeader)
	before, seen := parseConditions(former), parseConditions(latter)
	for _, p := range places {
		if slices.ContainsFunc(p.servers(app), func(s string) bool { return before[s].maint }) {
			rested = append(rested, p)
		}
	}
	for {
		missing, alive := absent(app, places, seen)
		if len(missing) == 0 {
			return rested, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
			if said, err = a.ask(ctx, showState); err == nil {
				seen = parseConditions(said)
			} else if ctx.Err() == nil {
				return rested, err
			}
			continue
		}
		if alive && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return rested, nil
		}
		return rested, failed(a.host, "bring up "+app, plugins.Unavailable, fmt.Errorf("haproxy sees %s down: %w", strings.Join(missing, ", "), context.Cause(ctx)))
	}
}

// absent names the replicas that are not up, and reports whether each place
// has one that is.
func absent(app string, places []place, seen map[string]condition) (missing []string, alive bool) {
	alive = true
	for _, p := range places {
		some := false
		for _, s := range p.servers(app) {
			if seen[s].up {
				some = true
			} else {
				missing = append(missing, s)
			}
		}
		alive = alive && some
	}
	return missing, alive
}

const (
	showState   = "show servers state"
	stateHeader = "# be_id" // begins each answer to it
)

// parseConditions reads what show servers state says.
func parseConditions(said string) map[string]condition {
	const running, byCommand, byConfig = "2", 0x01, 0x04
	found := map[string]condition{}
	for line := range strings.Lines(said) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		if state, err := strconv.Atoi(f[6]); err == nil {
			found[f[1]+"/"+f[3]] = condition{up: f[5] == running, maint: state&(byCommand|byConfig) != 0}
		}
	}
	return found
}

// parseOpen counts in what show stat says the requests and tunnels that are
// open to each slot now. A replica appears in the sections of both slots: in
// that of the other one it stands in.
func parseOpen(said string, l proxy.Layout) map[string]map[proxy.Slot]int {
	counts := map[string]map[proxy.Slot]int{}
	owner := map[string]string{}
	for _, m := range l.Members {
		counts[m.Name] = map[proxy.Slot]int{proxy.Blue: 0, proxy.Green: 0}
		for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
			owner[section(l.App, m.Name, slot)] = m.Name
		}
	}
	for line := range strings.Lines(said) {
		const sectionColumn, serverColumn, openColumn = 0, 1, 4
		f := strings.Split(line, ",")
		if len(f) <= openColumn {
			continue
		}
		member, ours := owner[f[sectionColumn]]
		slot, _, _ := strings.Cut(f[serverColumn], ":")
		if n, err := strconv.Atoi(f[openColumn]); ours && err == nil {
			counts[member][proxy.Slot(slot)] += n
		}
	}
	return counts
}
