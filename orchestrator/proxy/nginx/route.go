package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// The datum of an app is the folder route in its own one:
//
//	w000 … w100  what green gets in percent: w005 holds the files 0 to 4, one a
//	             bucket, and share, which says it in words for /.teal/slot
//	cur          a symbolic link to one of them; renaming it is the switch
//	conf         the path of the configuration file
//	announce     exists for a moment before and in a reload
func routeDir(l proxy.Layout) string { return l.Dir + "/route" }

const (
	buckets     = 100
	shareFormat = "blue %d green %d"
)

// fillShell defines fill PERCENT, which makes the folder of a share, or makes
// it right. Nothing refers to a folder before fill has seen all of it.
const fillShell = `
umask 022
route=$1/route
fill() {
	w=$route/w$(printf %03d "$1")
	mkdir -p "$w" || return
	i=0
	while [ $i -lt 100 ]; do
		if [ $i -lt "$1" ]; then
			[ -f "$w/$i" ] || : >"$w/$i" || return
		elif [ -e "$w/$i" ]; then
			rm "$w/$i" || return
		fi
		i=$((i + 1))
	done
	share="blue $((100 - $1)) green $1"
	[ "$(cat "$w/share" 2>/dev/null)" = "$share" ] ||
		{ echo "$share" >"$w/.share" && mv -f "$w/.share" "$w/share"; } || return
	sync "$w"
}
`

const makeScript = fillShell + `
rm -f "$route/announce"
fill 0 && fill 100 || exit
to=$(readlink "$route/cur")
case $to in
w0[0-9][0-9] | w100)
	n=${to#w} n=${n#0}
	fill "${n#0}" || exit ;;
*)
	rm -f "$route/cur" && ln -s w000 "$route/cur" || exit ;;
esac
sync "$route"
`

// makeRoute makes the datum, with blue serving, or repairs what is missing of
// the one that is there. Where requests go to does not change.
func makeRoute(ctx context.Context, h plugins.Host, l proxy.Layout) error {
	err := h.Run(ctx, &plugins.Command{Args: []string{"sh", "-c", makeScript, "teal", l.Dir}})
	if err != nil {
		return failed(h, "make "+routeDir(l), plugins.KindOf(err), err)
	}
	return nil
}

const noteScript = `
umask 022
[ "$(cat "$1/conf" 2>/dev/null)" != "$2" ] || exit 0
echo "$2" >"$1/.conf" && mv -f "$1/.conf" "$1/conf" && sync "$1"
`

// note remembers where the configuration file is: the app is prepared.
func note(ctx context.Context, h plugins.Host, l proxy.Layout, conf string) error {
	err := h.Run(ctx, &plugins.Command{Args: []string{"sh", "-c", noteScript, "teal", routeDir(l), conf}})
	if err != nil {
		return failed(h, "note the place of "+conf, plugins.KindOf(err), err)
	}
	return nil
}

// Exit codes of turnScript.
const (
	codeNoRoute  = 10
	codeUnsynced = 11 // turned, but not known to be on the disk
)

const turnScript = fillShell + `
former=$(readlink "$route/cur") && [ -d "$route/cur/" ] || exit 10
echo "$former"
fill "$2" || exit 12
to=${w##*/}
[ "$former" != "$to" ] || exit 0
rm -f "$route/.cur" && ln -s "$to" "$route/.cur" && mv -fT "$route/.cur" "$route/cur" || exit 12
sync "$route" || exit 11
`

// turn makes green get so many percent, and returns what it got before. When
// it returns an error with turned, the datum may have changed.
func turn(ctx context.Context, h plugins.Host, l proxy.Layout, green int) (former int, turned bool, err error) {
	var out bytes.Buffer
	err = h.Run(ctx, &plugins.Command{
		Args:   []string{"sh", "-c", turnScript, "teal", l.Dir, strconv.Itoa(green)},
		Stdout: &out,
	})
	var exit *plugins.ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == codeNoRoute:
		return 0, false, failed(h, "switch "+l.App, plugins.NotFound, fmt.Errorf("%s does not exist: nginx is not prepared for the app", routeDir(l)))
	case errors.As(err, &exit) && exit.Code != codeUnsynced:
		return 0, false, failed(h, "switch "+l.App, "", err)
	case err != nil && exit == nil:
		return 0, true, failed(h, "switch "+l.App, plugins.KindOf(err), fmt.Errorf("%w: %w", proxy.ErrUnknown, err))
	}
	former, ok := percent(out.String())
	if !ok {
		return 0, true, failed(h, "switch "+l.App, "", fmt.Errorf("%w: %s/cur led to %q", proxy.ErrUnknown, routeDir(l), out.String()))
	}
	return former, true, err
}

// Switch turns the datum and lets nginx confirm it, in two round trips: the
// connection on which it asks is made before, so that an nginx that does not
// run is known before anything has changed.
func (p *Proxy) Switch(ctx context.Context, h plugins.Host, l proxy.Layout, r proxy.Route) error {
	if err := valid(l); err != nil {
		return failed(h, "switch "+l.App, plugins.Invalid, err)
	}
	if !r.Slot.Valid() || r.Share < 0 || r.Share > buckets || r.App != l.App {
		return failed(h, "switch "+l.App, plugins.Invalid, fmt.Errorf("there is no route %q of %q", r, r.App))
	}
	c, err := dial(ctx, h, l)
	if err != nil {
		return failed(h, "switch "+l.App, plugins.KindOf(err), fmt.Errorf("nginx does not serve the app, nothing was changed: %w", err))
	}
	defer c.close()

	green := greenShare(r)
	former, turned, err := turn(ctx, h, l, green)
	if errors.Is(err, proxy.ErrUnknown) || err != nil && !turned {
		return err
	}
	if err == nil {
		_, err = proveOn(ctx, h, l, c, serves(green))
	}
	if err == nil {
		return nil
	}
	return turnBack(ctx, h, l, former, err)
}

// turnBack undoes a turn that cause speaks against, also when ctx has ended,
// and returns cause, as unknown when that cannot be proven either.
func turnBack(ctx context.Context, h plugins.Host, l proxy.Layout, former int, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*proofWithin)
	defer cancel()
	_, _, err := turn(ctx, h, l, former)
	if err == nil {
		_, err = prove(ctx, h, l, serves(former))
	}
	if err != nil {
		return failed(h, "switch "+l.App, plugins.KindOf(cause), fmt.Errorf("%w: %w; going back: %w", proxy.ErrUnknown, cause, err))
	}
	return failed(h, "switch "+l.App, plugins.KindOf(cause), fmt.Errorf("%w; %s serves as before", cause, routeOf(l, former)))
}

func serves(green int) func(answer) error {
	return func(a answer) error {
		if a.green != green {
			return fmt.Errorf("green gets %d%% of the requests, not %d%%", a.green, green)
		}
		return nil
	}
}

func greenShare(r proxy.Route) int {
	if r.Slot == proxy.Green {
		return r.Share
	}
	return buckets - r.Share
}

// routeOf names the slot that gets most, blue when both get the same.
func routeOf(l proxy.Layout, green int) proxy.Route {
	if green > buckets/2 {
		return proxy.Route{App: l.App, Slot: proxy.Green, Share: green}
	}
	return proxy.Route{App: l.App, Slot: proxy.Blue, Share: buckets - green}
}

// percent reads the name of a share's folder.
func percent(name string) (green int, ok bool) {
	m := regexp.MustCompile(`^w(0\d\d|100)\n?$`).FindStringSubmatch(name)
	if m == nil {
		return 0, false
	}
	green, err := strconv.Atoi(m[1])
	return green, err == nil
}

// RoutedScript needs a POSIX shell and readlink. It says that the slot is not
// routed to only when link, folder and files agree on that; a slot that gets
// any share is routed to.
func (p *Proxy) RoutedScript(l proxy.Layout, slot proxy.Slot) (script string, args []string) {
	return routedScript, []string{routeDir(l) + "/cur", string(slot)}
}

const routedScript = `
n=0 i=0
while [ $i -lt 100 ]; do
	[ ! -f "$1/$i" ] || n=$((n + 1))
	i=$((i + 1))
done
[ -f "$1/share" ] || exit 0
case "$(readlink "$1")/$2/$n" in
w000/green/0 | w100/blue/100) exit 1 ;;
esac
exit 0
`
