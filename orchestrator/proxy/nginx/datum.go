package nginx

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// The datum of an app is the folder route in its own one:
//
//	w000 … w100  what green gets in percent: w005 holds the files 0 to 4, one a
//	             bucket
//	off          the share of a member that is off: holds off
//	s1 s2 …      sets: for each member a symbolic link to the folder of its
//	             share, in .says what /.teal/slot answers for it, and, while
//	             some members are off, .away with a file BUCKET.MEMBER for who
//	             stands in
//	cur          a symbolic link to the set that serves; renaming it is the switch
//	conf         the path of the configuration file
//	announce     exists for a moment before and in a reload
//
// A set that cur has led to is never changed. The last few are kept: a request
// may be looking.
func routeDir(l proxy.Layout) string { return l.Dir + "/route" }

// What .says has of a member is a line with its share, and one with the
// releases in blue and in green, '-' for one that is not known.
const (
	buckets     = 100
	shareFormat = "blue %d green %d"
	unnamed     = "-"
)

// shareDir returns the name of a share's folder.
func shareDir(s proxy.Share) string {
	if s == proxy.Off {
		return "off"
	}
	return fmt.Sprintf("w%03d", s)
}

// parseShareDir undoes shareDir.
func parseShareDir(name string) (proxy.Share, bool) {
	if name == "off" {
		return proxy.Off, true
	}
	if !regexp.MustCompile(`^w(0\d\d|100)$`).MatchString(name) {
		return 0, false
	}
	green, err := strconv.Atoi(name[1:])
	return proxy.Share(green), err == nil
}

// parseSet reads what ls -l says of a set's folder.
func parseSet(list string) proxy.Route {
	r := proxy.Route{}
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) < 4 || f[len(f)-2] != "->" {
			continue
		}
		dir, isShare := strings.CutPrefix(f[len(f)-1], "../")
		share, ok := parseShareDir(dir)
		member, named := memberOf(f[len(f)-3])
		if isShare && ok && named {
			r[member] = share
		}
	}
	return r
}

// isSet reports whether cur leads to a set.
func isSet(cur string) bool { return regexp.MustCompile(`^s\d+$`).MatchString(cur) }

// setShell defines what the scripts that make sets have in common. The app's
// folder is their first argument.
//
//	words SHARE     says it in words, $share, and what green gets, $n
//	fill SHARE      makes the folder of a share, or makes it right; nothing
//	                refers to one before fill has seen all of it
//	begin SET       makes the folder $new, with the members of SET
//	away SET        says who stands in, for a set whose links are complete; of
//	                $stay, where that says who does, as long as one of them can
//	held MEMBER     the releases that it holds: those that $holds has for it, as
//	                MEMBER:SLOT=RELEASE, else those of the set that served
//	says            what is answered for each member of $new
//	finish          lets cur lead to $new; unsynced=1 when that is not known to
//	                be on the disk
const setShell = `
umask 022
route=$1/route filled= stay= holds= former=
shift
words() {
	n=${1#w} n=${n#0} n=${n#0}
	[ "$1" = off ] && n=0 share=off || share="blue $((100 - n)) green $n"
}
fill() {
	case $filled in *" $1 "*) return ;; esac
	w=$route/$1 i=0 dirty=
	[ -d "$w" ] || { mkdir -p "$w" && dirty=1; } || return
	words "$1"
	while [ $i -lt 100 ]; do
		if [ $i -lt "$n" ]; then
			[ -f "$w/$i" ] || { true >"$w/$i" && dirty=1; } || return
		elif [ -e "$w/$i" ]; then
			rm "$w/$i" && dirty=1 || return
		fi
		i=$((i + 1))
	done
	if [ "$1" = off ]; then
		[ -f "$w/off" ] || { true >"$w/off" && dirty=1; } || return
	elif [ -e "$w/off" ]; then
		rm "$w/off" && dirty=1 || return
	fi
	[ -z "$dirty" ] || sync "$w" || return
	filled="$filled $1 "
}
begin() {
	last=0
	for s in "$route"/s[0-9]*; do
		i=${s##*/s}
		case $i in *[!0-9]*) continue ;; esac
		[ "$i" -le $last ] || last=$i
	done
	new=$route/s$((last + 1))
	mkdir "$new" || return
	for link in "$1"/*; do
		[ ! -L "$link" ] || { cp -RP "$1"/* "$new/"; return; }
	done
}
away() {
	on= off= staying= i=0
	for m in "$1"/*; do
		if [ -f "$m/off" ]; then off=1; continue; fi
		on="$on ${m##*/}"
		case $stay in *" ${m##*/} "*) staying="$staying ${m##*/}" ;; esac
	done
	on=${staying:-$on}
	[ -n "$on" ] && [ -n "$off" ] || return 0
	mkdir "$1/.away" || return
	while [ $i -lt 100 ]; do
		for m in $on; do
			[ $i -lt 100 ] || break
			true >"$1/.away/$i.$m" || return
			i=$((i + 1))
		done
	done
	sync "$1/.away"
}
held() {
	blue=- green=-
	[ ! -r "$route/$former/.says/$1" ] || { read -r _; read -r blue green; } <"$route/$former/.says/$1"
	was="$blue $green"
	case $holds in *" $1:blue="*) blue=${holds#*" $1:blue="} blue=${blue%% *} ;; esac
	case $holds in *" $1:green="*) green=${holds#*" $1:green="} green=${green%% *} ;; esac
}
says() {
	mkdir "$new/.says" || return
	for m in "$new"/*; do
		[ -L "$m" ] || continue
		held "${m##*/}"
		to=$(readlink "$m") && words "${to#../}" && printf '%s\n' "$share" "$blue $green" >"$new/.says/${m##*/}" || return
	done
	for m in "$new/.says"/*; do
		[ ! -f "$m" ] || { sync "$new/.says"/* "$new/.says"; return; }
	done
}
finish() {
	says && away "$new" && sync "$new" || return
	[ ! -L "$route/.cur" ] || rm "$route/.cur" || return
	ln -s "${new##*/}" "$route/.cur" && mv -fT "$route/.cur" "$route/cur" || return
	unsynced=
	sync "$route" || unsynced=1
	[ $((last % 8)) = 0 ] || return 0
	for s in "$route"/s[0-9]*; do
		i=${s##*/s}
		case $i in *[!0-9]*) continue ;; esac
		[ "$s" = "$route/$former" ] || [ "$i" -gt $((last - 7)) ] || rm -rf "$s"
	done
	return 0
}
`

const makeScript = setShell + `
begins=$1; shift
stay=" $* "
rm -f "$route/announce"
fill off && fill w000 && fill w100 || exit
former=$(readlink "$route/cur") want= lost= leaving=
if [ -z "$former" ] || [ ! -d "$route/$former" ]; then # the newest set there is
	former= lost=1
	for s in "$route"/s[0-9]*; do
		i=${s##*/s}
		case $i in *[!0-9]*) continue ;; esac
		[ -n "$former" ] && [ "$i" -le "${former#s}" ] || former=${s##*/}
	done
fi
[ -z "$former" ] && [ -n "$begins" ] || begins=off
for m in "$route/${former:-none}"/*; do
	[ -L "$m" ] || continue
	case $stay in *" ${m##*/} "*) ;; *) leaving=1 ;; esac
	to=$(readlink "$m")
	case $to in
	../off | ../w0[0-9][0-9] | ../w100)
		fill "${to#../}" || exit
		words "${to#../}"
		said=
		[ ! -r "$route/$former/.says/${m##*/}" ] || read -r said <"$route/$former/.says/${m##*/}"
		[ "$said" = "$share" ] || lost=1
		;;
	*) want="$want ${m##*/}" ;;
	esac
done
for m; do
	[ -L "$route/${former:-none}/$m" ] || want="$want $m"
done
[ -n "$want$lost$leaving" ] || exit 0
begin "$route/${former:-none}" || { rm -rf "$new"; exit 12; }
for m in $want; do
	ln -sfn "../$begins" "$new/$m" || { rm -rf "$new"; exit 12; }
done
[ -L "$route/cur" ] || rm -rf "$route/cur"
finish || { rm -rf "$new"; exit 12; }
[ -z "$unsynced" ] || exit 11
`

// makeRoute makes the datum, or repairs what is missing of the one that is
// there. Members that are not in it begin with off. Where all of it was lost
// they begin with what nginx does without it, which is blue. Members that leave
// stay in it, for the workers that know them, but stand in for nobody: the new
// workers do not know them.
func makeRoute(ctx context.Context, h plugins.Host, l proxy.Layout, configured bool) error {
	begins := ""
	if configured {
		begins = shareDir(proxy.Blue.All())
	}
	args := append([]string{"sh", "-c", makeScript, "teal", l.Dir, begins}, tokens(l.Members)...)
	if err := h.Run(ctx, &plugins.Command{Args: args}); err != nil {
		return failed(h, "make "+routeDir(l), plugins.KindOf(err), err)
	}
	return nil
}

func tokens(members []proxy.Member) []string {
	var ts []string
	for _, m := range members {
		ts = append(ts, token(m.Name))
	}
	return ts
}

const keepScript = setShell + `
former=$(readlink "$route/cur") && [ -d "$route/cur/" ] || exit 10
keep=" $* " drop=
for m in "$route/cur"/*; do
	case $keep in *" ${m##*/} "*) ;; *) drop="$drop ${m##*/}" ;; esac
done
[ -n "$drop" ] || exit 0
begin "$route/cur" || { rm -rf "$new"; exit 12; }
for m in $drop; do
	rm "$new/$m" || { rm -rf "$new"; exit 12; }
done
finish || { rm -rf "$new"; exit 12; }
[ -z "$unsynced" ] || exit 11
`

// keep forgets all members but those of the names.
func keep(ctx context.Context, h plugins.Host, l proxy.Layout, names []string) error {
	args := append([]string{"sh", "-c", keepScript, "teal", l.Dir}, names...)
	if err := h.Run(ctx, &plugins.Command{Args: args}); err != nil {
		return failed(h, "forget members of "+l.App, plugins.KindOf(err), err)
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

// RoutedScript needs a POSIX shell and readlink. It says that the slot is not
// routed to only when links, folder and files agree on that; a slot that gets
// any share is routed to, and none of a member that is off.
func (p *Proxy) RoutedScript(l proxy.Layout, member string, slot proxy.Slot) (script string, args []string) {
	return routedScript, []string{routeDir(l) + "/cur", token(member), string(slot)}
}

const routedScript = `
m=$1/$2 n=0 i=0
while [ $i -lt 100 ]; do
	[ ! -f "$m/$i" ] || n=$((n + 1))
	i=$((i + 1))
done
[ -d "$m/" ] || exit 0
[ ! -f "$m/off" ] || n=off$n
case "$(readlink "$1")/$(readlink "$m")/$3/$n" in
s[0-9]*/../w000/green/0 | s[0-9]*/../w100/blue/100) exit 1 ;;
s[0-9]*/../off/green/off0 | s[0-9]*/../off/blue/off0) exit 1 ;;
esac
exit 0
`
