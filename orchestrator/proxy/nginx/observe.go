package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

const lookScript = sectionShell + `
route=$1/route
section cur; readlink "$route/cur"
section set; ls -l "$route/cur/" 2>/dev/null
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
	cur      string      // what the link leads to; empty: there is no link
	disk     proxy.Route // the shares of that set
	note     string      // where the configuration file was written
	conf     []byte      // what it says; nil: missing, or not readable to the login user
	missing  bool
	announce bool // a reload was announced and nobody took that back
	live     []liveMember
}

// A liveMember is what nginx says of a member of the layout.
type liveMember struct {
	answer
	err error
}

// look reads the datum and asks nginx, at the same time.
func look(ctx context.Context, h plugins.Host, l proxy.Layout) (sight, error) {
	s := sight{live: make([]liveMember, len(l.Members))}
	asked := make(chan error)
	go func() {
		asked <- together(l.Members, func(i int, m proxy.Member) (lost error) {
			a := &s.live[i]
			if a.answer, a.err = askTwice(ctx, h, l, m); errors.Is(a.err, plugins.Lost) {
				return a.err
			}
			return nil
		})
	}()
	out, err := plugins.Output(ctx, h, "sh", "-c", lookScript, "teal", l.Dir)
	if lost := <-asked; err == nil {
		err = lost
	}
	if err != nil {
		return sight{}, failed(h, "look at "+routeDir(l), plugins.KindOf(err), err)
	}
	for _, sec := range sections(out) {
		switch sec.name {
		case "cur":
			s.cur = sec.line()
		case "set":
			s.disk = parseSet(string(sec.text))
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

// answered reports whether nginx spoke for a member at least.
func (s sight) answered() bool {
	for _, a := range s.live {
		if a.err == nil {
			return true
		}
	}
	return false
}

// silent reports whether nginx did not speak for all members.
func (s sight) silent() bool {
	for _, a := range s.live {
		if a.err != nil {
			return true
		}
	}
	return false
}

// intact reports whether the datum is as Prepare leaves it.
func (s sight) intact(l proxy.Layout) bool {
	for i, m := range l.Members {
		share, ok := s.disk[m.Name]
		if !ok || s.live[i].err == nil && s.live[i].share != share {
			return false
		}
	}
	return isSet(s.cur) && len(s.disk) == len(l.Members) && !s.announce
}

// loaded reports whether the file says what it shall and nginx runs with it.
func (s sight) loaded(conf []byte, generation string) bool {
	for _, a := range s.live {
		if a.err != nil || a.generation != generation {
			return false
		}
	}
	return bytes.Equal(bytes.TrimSpace(s.conf), bytes.TrimSpace(conf))
}

func (s sight) ready(l proxy.Layout, conf []byte, generation string) bool {
	return s.intact(l) && s.note != "" && s.loaded(conf, generation)
}

func (s sight) observation(l proxy.Layout, conf []byte, generation string) proxy.Observation {
	if !isSet(s.cur) || s.note == "" && !s.answered() {
		return proxy.Observation{}
	}
	o := proxy.Observation{
		Prepared: true,
		Outdated: s.missing || s.conf != nil && !bytes.Equal(bytes.TrimSpace(s.conf), bytes.TrimSpace(conf)),
		Disk:     s.disk,
		Live:     proxy.Route{},
	}
	var problems []string
	for i, a := range s.live {
		name := l.Members[i].Name
		disk, known := s.disk[name]
		o.Outdated = o.Outdated || !known || a.err == nil && a.generation != generation
		if a.err != nil {
			problems = append(problems, fmt.Sprintf("nginx does not say what serves of %s: %v", name, a.err))
			continue
		}
		o.Live[name] = a.share
		o.Holds.Set(name, a.holds)
		if known && a.share != disk {
			problems = append(problems, fmt.Sprintf("%s is %s, but %s on the disk", name, a.share, disk))
		}
	}
	o.Problem = strings.Join(problems, "; ")
	return o
}
