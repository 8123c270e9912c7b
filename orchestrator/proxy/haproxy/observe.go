package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

const lookScript = sectionShell + `
data=$1 block=$2
[ ! -f "$data/shares.map" ] || { section map; cat "$data/shares.map"; }
[ ! -f "$data/releases.map" ] || { section releases; cat "$data/releases.map"; }
[ -f "$data/note" ] || exit 0
section note; cat "$data/note"
read -r conf <"$data/note"
if [ -r "$conf" ]; then
	section block; sed -n "/^# teal:$block begin/,/^# teal:$block end/p" "$conf"
elif [ -x "${conf%/*}/" ] && [ ! -e "$conf" ]; then
	section missing
fi
exit 0
`

// A sight is what one look at the host found, on disk and live.
type sight struct {
	written bool // there is a map of shares
	named   bool // and one of releases
	text    string
	disk    proxy.Route
	mapErr  error // what is wrong with the map file
	holds   proxy.Releases
	note    note
	block   []byte // in the configuration; nil: the login user may not read it
	missing bool   // the configuration file
	live    map[string]answer
}

// look reads the data and asks haproxy about members, at the same time.
func look(ctx context.Context, h plugins.Host, l proxy.Layout, members []proxy.Member) (sight, error) {
	var s sight
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		s.live = askMembers(ctx, h, l, members)
	}()
	out, err := plugins.Output(ctx, h, "sh", "-c", lookScript, "teal", dataDir(l), regexp.QuoteMeta(l.App))
	<-asked
	for _, a := range s.live {
		if err == nil && errors.Is(a.err, plugins.Lost) {
			err = a.err
		}
	}
	if err != nil {
		return sight{}, failed(h, "look at "+dataDir(l), plugins.KindOf(err), err)
	}
	for _, sec := range sections(out) {
		switch sec.name {
		case "map":
			s.written, s.text = true, string(sec.text)
		case "releases":
			s.holds = parseReleases(string(sec.text))
			s.named = true
		case "note":
			place, admin, _ := strings.Cut(sec.line(), "\n")
			s.note = note{place: place, admin: strings.TrimSpace(admin)}
		case "block":
			s.block = append([]byte{}, sec.text...)
		case "missing":
			s.missing = true
		}
	}
	s.disk, s.mapErr = parseMap(s.text)
	return s, nil
}

// outdated reports whether the configuration is not the one of the layout, on
// disk or in what runs.
func (s sight) outdated(l proxy.Layout, block []byte, generation string) bool {
	if s.missing || s.block != nil && !bytes.Equal(bytes.TrimSpace(s.block), bytes.TrimSpace(block)) {
		return true
	}
	return slices.ContainsFunc(l.Members, func(m proxy.Member) bool {
		a := s.live[m.Name]
		return a.err == nil && a.generation != generation
	})
}

// answered reports whether haproxy answered for every member.
func (s sight) answered() bool {
	for _, a := range s.live {
		if a.err != nil {
			return false
		}
	}
	return true
}

// ready reports whether nothing is left to prepare.
func (s sight) ready(l proxy.Layout, block []byte, generation string) bool {
	if s.mapErr != nil || !s.named || s.note == (note{}) || len(s.disk) != len(l.Members) || !s.answered() || s.outdated(l, block, generation) {
		return false
	}
	for _, m := range l.Members {
		if share, ok := s.disk[m.Name]; !ok || s.live[m.Name].share != share {
			return false
		}
	}
	return true
}

// Observe reads the map file, asks haproxy on the ports that route, and
// compares both with what its admin socket says.
func (p *Proxy) Observe(ctx context.Context, h plugins.Host, l proxy.Layout) (proxy.Observation, error) {
	block, generation, err := text(l)
	if err != nil {
		return proxy.Observation{}, failed(h, "observe "+l.App, plugins.Invalid, err)
	}
	s, err := look(ctx, h, l, l.Members)
	if err != nil || !s.written || s.note == (note{}) {
		return proxy.Observation{}, err
	}
	o := proxy.Observation{Prepared: true, Outdated: s.outdated(l, block, generation), Disk: s.disk, Live: proxy.Route{}}
	var problems []string
	if s.mapErr != nil {
		problems = append(problems, fmt.Sprintf("%s is broken: %v", mapFile(l), s.mapErr))
	}
	for _, m := range l.Members {
		a := s.live[m.Name]
		disk, known := s.disk[m.Name]
		switch {
		case a.err != nil:
			problems = append(problems, fmt.Sprintf("haproxy does not say what serves the member %s: %v", m.Name, a.err))
			continue
		case !known && s.mapErr == nil:
			problems = append(problems, fmt.Sprintf("haproxy serves %s for the member %s, which the disk does not know", a.share, m.Name))
		case known && disk != a.share:
			problems = append(problems, fmt.Sprintf("haproxy serves %s for the member %s, but the disk says %s", a.share, m.Name, disk))
		}
		o.Live[m.Name] = a.share
		o.Holds.Set(m.Name, a.holds)
	}
	said, err := admin{h, s.note.admin}.ask(ctx, "show map "+mapFile(l), "show stat -1 4 -1")
	if errors.Is(err, plugins.Lost) {
		return proxy.Observation{}, err
	}
	if err != nil {
		problems = append(problems, err.Error())
	} else {
		o.Open = parseOpen(said, l)
		if shown, err := parseShown(said); s.answered() && !o.Outdated && (err != nil || !maps.Equal(shown, o.Live)) {
			problems = append(problems, fmt.Sprintf("haproxy's map says %v, but it serves %v", shown, o.Live))
		}
	}
	o.Problem = strings.Join(problems, "; ")
	return o, nil
}
