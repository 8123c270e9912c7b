package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// Switch turns the datum and lets nginx confirm it, in two round trips: the
// connections on which it asks are made before, so that an nginx that does not
// run is known before anything has changed.
func (p *Proxy) Switch(ctx context.Context, h plugins.Host, l proxy.Layout, change proxy.Route, holds proxy.Releases) error {
	op := "switch " + l.App
	if err := valid(l); err != nil {
		return unfit(h, op, err)
	}
	if !holds.Valid() {
		return failed(h, op, plugins.Invalid, fmt.Errorf("the names of releases %v cannot be written", holds))
	}
	members, err := changed(l, change)
	if err != nil || len(members) == 0 {
		return err
	}
	lines, err := dialAll(ctx, h, l, members)
	if err != nil {
		return failed(h, op, plugins.KindOf(err), fmt.Errorf("nginx does not serve the app, nothing was changed: %w", err))
	}
	defer closeAll(lines)

	former, turned, err := turn(ctx, h, l, change, holds)
	if errors.Is(err, proxy.ErrUnknown) || err != nil && !turned {
		return err
	}
	if err == nil {
		err = proxy.Unproven(ctx, proveAll(ctx, h, l, members, lines, change, holds))
	}
	if err == nil {
		return nil
	}
	return turnBack(ctx, h, l, former, members, err)
}

// changed returns the members that a change names.
func changed(l proxy.Layout, change proxy.Route) ([]proxy.Member, error) {
	known := map[string]bool{}
	var members []proxy.Member
	for _, m := range l.Members {
		known[m.Name] = true
		if _, ok := change[m.Name]; ok {
			members = append(members, m)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(change)) {
		if !known[name] || !change[name].Valid() {
			return nil, &plugins.Error{Op: "switch " + l.App, Kind: plugins.Invalid, Err: fmt.Errorf("share %d of member %q: there is no such thing", change[name], name)}
		}
	}
	return members, nil
}

// Exit codes of turnScript and backScript.
const (
	codeNoRoute  = 10
	codeUnsynced = 11 // turned, but not known to be on the disk
)

// turnScript takes what $holds shall be, then pairs of a member and the folder
// of its new share.
const turnScript = setShell + `
holds=$1; shift
former=$(readlink "$route/cur") && [ -d "$route/cur/" ] || exit 10
echo "$former"
ready() {
	[ -L "$route/cur/$1" ] || exit 10
	fill "$2" || exit 12
	held "$1"
	[ "$route/cur/$1" -ef "$route/$2" ] && [ "$was" = "$blue $green" ] || differs=1
}
point() { ln -sfn "../$2" "$new/$1"; }
each() {
	verb=$1; shift
	while [ $# -gt 0 ]; do
		"$verb" "$1" "$2" || return
		shift 2
	done
}
differs=
each ready "$@"
[ -n "$differs" ] || exit 0
begin "$route/cur" && each point "$@" && finish || { rm -rf "$new"; exit 12; }
[ -z "$unsynced" ] || exit 11
`

// turn makes a set with the change and lets it serve; former is the one that
// did before. When it returns an error with turned, the datum may have
// changed.
func turn(ctx context.Context, h plugins.Host, l proxy.Layout, change proxy.Route, holds proxy.Releases) (former string, turned bool, err error) {
	args := []string{"sh", "-c", turnScript, "teal", l.Dir, holdsText(change, holds)}
	for _, name := range slices.Sorted(maps.Keys(change)) {
		args = append(args, token(name), shareDir(change[name]))
	}
	var out bytes.Buffer
	err = h.Run(ctx, &plugins.Command{Args: args, Stdout: &out})
	op := "switch " + l.App
	var exit *plugins.ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == codeNoRoute:
		return "", false, failed(h, op, plugins.NotFound, fmt.Errorf("%s does not have these members: nginx is not prepared for them", routeDir(l)))
	case errors.As(err, &exit) && exit.Code != codeUnsynced:
		return "", false, failed(h, op, "", err)
	case err != nil && exit == nil:
		return "", true, failed(h, op, plugins.KindOf(err), fmt.Errorf("%w: %w", proxy.ErrUnknown, err))
	}
	former = strings.TrimSpace(out.String())
	if !isSet(former) {
		return "", true, failed(h, op, "", fmt.Errorf("%w: %s/cur led to %q", proxy.ErrUnknown, routeDir(l), former))
	}
	return former, true, err
}

// holdsText is $holds of the scripts for the members of a change.
func holdsText(change proxy.Route, holds proxy.Releases) string {
	var b strings.Builder
	b.WriteByte(' ')
	for _, name := range slices.Sorted(maps.Keys(change)) {
		for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
			if release := holds.Of(name, slot); release != "" {
				fmt.Fprintf(&b, "%s:%s=%s ", token(name), slot, release)
			}
		}
	}
	return b.String()
}

const backScript = `
route=$1/route
[ -d "$route/$2" ] || exit 10
rm -f "$route/.cur" && ln -s "$2" "$route/.cur" && mv -fT "$route/.cur" "$route/cur" || exit 12
sync "$route" || exit 11
ls -l "$route/cur/"
`

// turnBack lets the former set serve again, also when ctx has ended, because
// cause speaks against the one that does. It returns cause, as unknown when
// that cannot be proven either. An nginx that gives no answer needs none: it
// looks for the file again for every request that it will take.
func turnBack(ctx context.Context, h plugins.Host, l proxy.Layout, former string, members []proxy.Member, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*proofWithin)
	defer cancel()
	out, err := plugins.Output(ctx, h, "sh", "-c", backScript, "teal", l.Dir, former)
	route := parseSet(string(out))
	if err == nil {
		err = proveAll(ctx, h, l, members, nil, route, nil)
		if err != nil && silent(ctx, h, l, members) {
			return failed(h, "switch "+l.App, plugins.KindOf(cause), fmt.Errorf("nginx does not answer, all on the disk is as before: %w", cause))
		}
	}
	if err != nil {
		return failed(h, "switch "+l.App, plugins.KindOf(cause), fmt.Errorf("%w: %w; going back: %w", proxy.ErrUnknown, cause, err))
	}
	var serves []string
	for _, m := range members {
		serves = append(serves, fmt.Sprintf("%s: %s", m.Name, route[m.Name]))
	}
	return failed(h, "switch "+l.App, plugins.KindOf(cause), fmt.Errorf("%w; all is as before (%s)", cause, strings.Join(serves, ", ")))
}

// silent reports whether nginx gives no answer at all for any of the members,
// over a connection to the host that works.
func silent(ctx context.Context, h plugins.Host, l proxy.Layout, members []proxy.Member) bool {
	return together(members, func(_ int, m proxy.Member) error {
		_, err := askTwice(ctx, h, l, m)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, plugins.Unavailable) {
			return nil
		}
		return errors.New("it answers")
	}) == nil
}
