package haproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// The data of an app are files in the folder haproxy of its own one:
//
//	shares.map    a line a member: its name and the percent that green gets, -1
//	              when it is off; haproxy reads it when it starts
//	releases.map  a line a slot: MEMBER:SLOT and the release in it, for the
//	              answers at /.teal/slot; haproxy reads it when it starts
//	note          the path of the configuration file, and the admin socket
func dataDir(l proxy.Layout) string { return l.Dir + "/haproxy" }

func mapFile(l proxy.Layout) string { return dataDir(l) + "/shares.map" }

func releasesFile(l proxy.Layout) string { return dataDir(l) + "/releases.map" }

// unnamed stands for a release that is not known.
const unnamed = "-"

// releasesText writes releases as a map of haproxy's.
func releasesText(holds proxy.Releases) string {
	var b strings.Builder
	for _, member := range slices.Sorted(maps.Keys(holds)) {
		for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
			if release := holds.Of(member, slot); release != "" {
				fmt.Fprintf(&b, "%s:%s %s\n", member, slot, release)
			}
		}
	}
	return b.String()
}

// parseReleases reads what releasesText wrote. A line that is none is a release
// that is not known.
func parseReleases(text string) proxy.Releases {
	holds := proxy.Releases{}
	for line := range strings.Lines(text) {
		key, release, _ := strings.Cut(strings.TrimSpace(line), " ")
		member, slot, ok := strings.Cut(key, ":")
		if !ok || release == "" || !proxy.Slot(slot).Valid() {
			continue
		}
		if holds[member] == nil {
			holds[member] = map[proxy.Slot]string{}
		}
		holds[member][proxy.Slot(slot)] = release
	}
	return holds
}

// data is what the maps say, on disk or in what runs.
type data struct {
	route proxy.Route
	holds proxy.Releases
}

// with returns the data after a change.
func (d data) with(change proxy.Route, holds proxy.Releases) data {
	to := data{maps.Clone(d.route), nil}
	maps.Copy(to.route, change)
	for member := range to.route {
		releases := map[proxy.Slot]string{}
		maps.Copy(releases, d.holds[member])
		if _, changes := change[member]; changes {
			maps.Copy(releases, holds[member])
		}
		to.holds.Set(member, releases)
	}
	return to
}

// mapText writes a route as a map of haproxy's.
func mapText(r proxy.Route) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&b, "%s %d\n", name, r[name])
	}
	return b.String()
}

// parseMap reads a map. What is wrong with it is an error, next to what is
// right.
func parseMap(text string) (proxy.Route, error) {
	route := proxy.Route{}
	var errs []error
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 2 {
			errs = append(errs, fmt.Errorf("line %.40q", line))
			continue
		}
		share, err := parseShare(f[1])
		if _, twice := route[f[0]]; twice && err == nil {
			err = errors.New("it is there twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("member %s: %w", f[0], err))
			continue
		}
		route[f[0]] = share
	}
	return route, errors.Join(errs...)
}

// Exit codes of the scripts that write.
const (
	codeNoMap     = 10
	codeUnsynced  = 11 // written, but not known to be on the disk
	codeUnwritten = 12
	codeChanged   = 13 // by somebody else
)

const putShell = `
umask 022
put() { # FILE: from standard input, by way of a neighbour
	new=${1%/*}/.${1##*/}
	{ cat >"$new" && sync "$new" && mv -f "$new" "$1"; } || { rm -f "$new"; exit 12; }
	sync "${1%/*}" || exit 11
}
`

const turnScript = putShell + `
file=$1/shares.map
[ -f "$file" ] || exit 10
[ "$(cat "$file")" = "$2" ] || exit 13
[ "$(cat "$1/releases.map")" = "${3%?}" ] || printf %s "$3" | put "$1/releases.map" || exit
put "$file"
`

// putMap replaces the map files; that of the shares must say what from says.
// When it returns an error with maybe, it may have been replaced. The names of
// releases come first: they are true whichever slot serves.
func putMap(ctx context.Context, h plugins.Host, l proxy.Layout, from string, to data) (maybe bool, err error) {
	err = h.Run(ctx, &plugins.Command{
		Args:  []string{"sh", "-c", turnScript, "teal", dataDir(l), strings.TrimRight(from, "\n"), releasesText(to.holds)},
		Stdin: strings.NewReader(mapText(to.route)),
	})
	exit, ran := errors.AsType[*plugins.ExitError](err)
	switch {
	case err == nil:
		return true, nil
	case !ran:
		return true, failed(h, "write "+mapFile(l), plugins.KindOf(err), err)
	case exit.Code == codeNoMap:
		return false, failed(h, "write "+mapFile(l), plugins.NotFound, errors.New("it does not exist: haproxy is not prepared for the app"))
	case exit.Code == codeChanged:
		return false, failed(h, "write "+mapFile(l), plugins.Conflict, errors.New("somebody else has changed it at the same time"))
	case exit.Code == codeUnwritten:
		return false, failed(h, "write "+mapFile(l), "", err)
	}
	return true, failed(h, "write "+mapFile(l), "", err) // unsynced, or ended in the middle
}

const makeScript = putShell + `
mkdir -p "$1" && { printf %s "$2" | put "$1/releases.map"; } && put "$1/shares.map"
`

// makeMap writes the map files whatever is there.
func makeMap(ctx context.Context, h plugins.Host, l proxy.Layout, d data) error {
	err := h.Run(ctx, &plugins.Command{
		Args:  []string{"sh", "-c", makeScript, "teal", dataDir(l), releasesText(d.holds)},
		Stdin: strings.NewReader(mapText(d.route)),
	})
	if err != nil {
		return failed(h, "write "+mapFile(l), plugins.KindOf(err), err)
	}
	return nil
}

const noteScript = putShell + `
mkdir -p "$1" && put "$1/note"
`

// write remembers where the configuration file and the admin socket are: the
// app is prepared.
func (n note) write(ctx context.Context, h plugins.Host, l proxy.Layout) error {
	err := h.Run(ctx, &plugins.Command{
		Args:  []string{"sh", "-c", noteScript, "teal", dataDir(l)},
		Stdin: strings.NewReader(n.place + "\n" + n.admin + "\n"),
	})
	if err != nil {
		return failed(h, "note the place of "+n.place, plugins.KindOf(err), err)
	}
	return nil
}

// A note is what Prepare leaves for the other operations.
type note struct {
	place string // the configuration file
	admin string // the admin socket
}

// load makes the maps that run what d says. The shares change at one instant as
// far as requests can tell: new entries are seen only when their version is
// committed, and the old ones until then. haproxy before 2.4 has no versions;
// there the entries change one after the other within one line of commands. The
// names of releases, of the members that are given, come before.
func (a admin) load(ctx context.Context, l proxy.Layout, d data, members []proxy.Member, more ...string) error {
	file := mapFile(l)
	var names []string
	for chunk := range slices.Chunk(members, namedAtATime) {
		if len(names) > 0 {
			if _, err := a.ask(ctx, names...); err != nil {
				return err
			}
		}
		names = nameCommands(l, chunk, d.holds)
	}
	version, err := a.prepareMap(ctx, file, names)
	if err != nil {
		return err
	}
	commands, err := a.changes(ctx, l, d.route, version)
	if err != nil {
		return err
	}
	said, err := a.ask(ctx, slices.Concat(commands, more, []string{"show map " + file})...)
	if err != nil {
		return err
	}
	if got, err := parseShown(said); err != nil || !maps.Equal(got, d.route) {
		return failed(a.host, "change the map of "+l.App, plugins.Unavailable, fmt.Errorf("haproxy did not take it: %.300s", strings.TrimSpace(said)))
	}
	return nil
}

// namedAtATime keeps a line of commands within haproxy's buffer.
const namedAtATime = 10

// nameCommands are the commands that make haproxy name the releases of members.
func nameCommands(l proxy.Layout, members []proxy.Member, holds proxy.Releases) []string {
	var commands []string
	for _, m := range members {
		for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
			key := m.Name + ":" + string(slot)
			commands = append(commands, "del map "+releasesFile(l)+" "+key)
			if release := holds.Of(m.Name, slot); release != "" {
				commands = append(commands, "add map "+releasesFile(l)+" "+key+" "+release)
			}
		}
	}
	return commands
}

// changes returns the commands that make the map what route says.
func (a admin) changes(ctx context.Context, l proxy.Layout, route proxy.Route, version string) (commands []string, err error) {
	file, verb, known := mapFile(l), "add map @"+version, proxy.Route(nil)
	if version == "" {
		if known, err = a.show(ctx, l); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(route)) {
		if version == "" {
			verb = "add map"
			if _, ok := known[name]; ok {
				verb = "set map"
			}
		}
		commands = append(commands, fmt.Sprintf("%s %s %s %d", verb, file, name, route[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if _, ok := route[name]; !ok {
			commands = append(commands, fmt.Sprintf("del map %s %s", file, name))
		}
	}
	if version != "" {
		commands = append(commands, fmt.Sprintf("commit map @%s %s", version, file))
	}
	return commands, nil
}

// prepareMap begins a version of a map, "" where haproxy knows none, after
// other commands.
func (a admin) prepareMap(ctx context.Context, file string, first []string) (string, error) {
	said, err := a.ask(ctx, append(first, "prepare map "+file)...)
	switch {
	case errors.Is(err, errRefused) && strings.Contains(said, "Unknown command"):
		return "", nil
	case err != nil:
		return "", err
	}
	_, version, ok := strings.Cut(said, "New version created: ")
	if !ok {
		return "", failed(a.host, "change the map "+file, plugins.NotFound, fmt.Errorf("haproxy does not run with it: %.200s", strings.TrimSpace(said)))
	}
	return strings.TrimSpace(version), nil
}

// show returns the map that runs.
func (a admin) show(ctx context.Context, l proxy.Layout) (proxy.Route, error) {
	said, err := a.ask(ctx, "show map "+mapFile(l))
	if err != nil {
		return nil, err
	}
	return parseShown(said)
}

// parseShown reads what show map says: each entry after an address.
func parseShown(said string) (proxy.Route, error) {
	var b strings.Builder
	for line := range strings.Lines(said) {
		if address, entry, ok := strings.Cut(line, " "); ok && strings.HasPrefix(address, "0x") {
			b.WriteString(entry)
		}
	}
	return parseMap(b.String())
}

// RoutedScript needs a POSIX shell alone. It says that the slot is not routed
// to only when the map file names the member once, with a share that gives
// the slot nothing.
func (p *Proxy) RoutedScript(l proxy.Layout, member string, slot proxy.Slot) (script string, args []string) {
	return routedScript, []string{mapFile(l), member, string(slot)}
}

const routedScript = `
[ -f "$1" ] && [ -r "$1" ] || exit 0
share=
while read -r name value rest || [ -n "$name" ]; do
	[ "$name" = "$2" ] || continue
	[ -z "$share$rest" ] || exit 0
	share=$value
done <"$1"
case $share/$3 in
-1/blue | -1/green | 0/green | 100/blue) exit 1 ;;
esac
exit 0
`
