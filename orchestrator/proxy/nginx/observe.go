package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

const lookScript = sectionShell + `
route=$1/route
section cur; readlink "$route/cur"
section announce; ls "$route/announce" 2>/dev/null
conf=$(cat "$route/conf" 2>/dev/null) || exit 0
section note; echo "$conf"
if [ -r "$conf" ]; then
	section conf; cat "$conf"
elif [ -x "${conf%/*}/" ] && [ ! -e "$conf" ]; then
	section missing
fi
exit 0
`

// A sight is what one look at the host found, on disk and live.
type sight struct {
	cur      string // what the link leads to; empty: there is no link
	note     string // where the configuration file was written
	conf     []byte // what it says; nil: missing, or not readable to the login user
	missing  bool
	announce bool // a reload was announced and nobody took that back
	live     answer
	liveErr  error
}

// look reads the datum and asks nginx, at the same time.
func look(ctx context.Context, h plugins.Host, l proxy.Layout) (sight, error) {
	var s sight
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		s.live, s.liveErr = askTwice(ctx, h, l)
	}()
	out, err := plugins.Output(ctx, h, "sh", "-c", lookScript, "teal", l.Dir)
	<-asked
	if err == nil && errors.Is(s.liveErr, plugins.Lost) {
		err = s.liveErr
	}
	if err != nil {
		return sight{}, failed(h, "look at "+routeDir(l), plugins.KindOf(err), err)
	}
	for _, sec := range sections(out) {
		switch sec.name {
		case "cur":
			s.cur = sec.line()
		case "announce":
			s.announce = sec.line() != ""
		case "note":
			s.note = sec.line()
		case "conf":
			s.conf = sec.text
		case "missing":
			s.missing = true
		}
	}
	return s, nil
}

// askTwice asks again when the connection broke, as it does when a worker of
// nginx leaves.
func askTwice(ctx context.Context, h plugins.Host, l proxy.Layout) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, proofWithin)
	defer cancel()
	a, err := askOnce(ctx, h, l, nil)
	if err != nil && plugins.KindOf(err) == "" {
		a, err = askOnce(ctx, h, l, nil)
	}
	return a, err
}

// intact reports whether the datum is as makeRoute leaves it.
func (s sight) intact() bool {
	_, ok := percent(s.cur)
	return ok && !s.announce
}

// loaded reports whether the file says what it shall and nginx runs with it.
func (s sight) loaded(conf []byte, generation string) bool {
	return bytes.Equal(bytes.TrimSpace(s.conf), bytes.TrimSpace(conf)) && s.liveErr == nil && s.live.generation == generation
}

func (s sight) ready(conf []byte, generation string) bool {
	return s.intact() && s.note != "" && s.loaded(conf, generation)
}

func (s sight) observation(l proxy.Layout, conf []byte, generation string) proxy.Observation {
	green, ok := percent(s.cur)
	if !ok || s.note == "" && s.liveErr != nil {
		return proxy.Observation{}
	}
	o := proxy.Observation{
		Prepared: true,
		Outdated: s.missing || s.conf != nil && !bytes.Equal(bytes.TrimSpace(s.conf), bytes.TrimSpace(conf)),
		Disk:     routeOf(l, green),
	}
	if s.liveErr != nil {
		o.Problem = "nginx does not say what serves: " + s.liveErr.Error()
		return o
	}
	o.Outdated = o.Outdated || s.live.generation != generation
	o.Live = routeOf(l, s.live.green)
	if o.Live != o.Disk {
		o.Problem = fmt.Sprintf("nginx serves %s, but the disk says %s", o.Live, o.Disk)
	}
	return o
}
