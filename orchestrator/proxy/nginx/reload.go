package nginx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// Exit codes of reloadScript.
const (
	codeNoSignal = 10
	codeLost     = 11 // the master goes on with the configuration it had
)

// reloadScript announces a reload with the files $3…, tells the master to
// reload, and waits until each old worker is on its way out and a new one is
// there. nginx tries for 2.5 s to listen where it cannot, so it gives up after
// 4 s. It runs to its end when nobody is connected any more.
const reloadScript = `
pid=$1 log=$2; shift 2
trap '' PIPE
trap 'exit 13' HUP INT TERM
children() { cat "/proc/$pid"/task/*/children 2>/dev/null || pgrep -P "$pid"; }
size=0
[ ! -f "$log" ] || size=$(wc -c <"$log")
if [ $# -gt 0 ]; then
	trap 'rm -f -- "$@"' EXIT
	for flag; do : >"$flag"; done
	sleep 1.5 2>/dev/null || sleep 2
fi
old=" $(children | tr '\n' ' ') "
kill -HUP "$pid" || exit 10
tenths=0
while [ $tenths -lt 40 ]; do
	sleep 0.1 2>/dev/null || { sleep 1; tenths=$((tenths + 9)); }
	tenths=$((tenths + 1))
	fresh=0 stale=0
	for k in $(children); do
		case $(tr -d '\000' 2>/dev/null <"/proc/$k/cmdline") in
		*"shutting down"*) continue ;;
		"nginx: worker process"*) ;;
		*) continue ;;
		esac
		case $old in
		*" $k "*) stale=1 ;;
		*) fresh=1 ;;
		esac
	done
	[ $fresh = 0 ] || [ $stale = 1 ] || exit 0
done
[ ! -f "$log" ] || tail -c "+$((size + 1))" "$log" | grep -E '\[(emerg|alert|crit)\]' | tail -n 5 >&2
exit 11
`

// reload makes nginx read its configuration, announced to every server that
// looks for such an announcement, and returns nil when it has taken it.
func (s survey) reload(ctx context.Context, h plugins.Host) error {
	args := append([]string{"sh", "-c", reloadScript, "teal", strconv.Itoa(s.pid), s.errorLog()}, s.announcements()...)
	err := h.Run(ctx, &plugins.Command{Args: args, Become: true})
	var exit *plugins.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.Code == codeNoSignal:
		err = fmt.Errorf("signal the nginx process %d: %w", s.pid, err)
	case errors.As(err, &exit) && exit.Code == codeLost:
		err = fmt.Errorf("nginx did not take the configuration and goes on with the former one: %s", logged(exit.Stderr))
	}
	return fmt.Errorf("reload: %w", err)
}

// logged shortens lines of an error log, of which nginx repeats some, to what
// they say.
func logged(text []byte) string {
	var lines []string
	for l := range strings.Lines(string(text)) {
		if _, said, ok := strings.Cut(l, "["); ok {
			l = "[" + said
		}
		if l = strings.TrimSpace(l); l != "" && !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return "its error log says why"
	}
	return strings.Join(lines, "; ")
}

// announcements returns the files that servers of the configuration look for.
func (s survey) announcements() []string {
	var flags []string
	for _, name := range slices.Sorted(maps.Keys(s.conf.files)) {
		for _, m := range regexp.MustCompile(`-f\s+"?(/[A-Za-z0-9_.,@+/-]*/route/announce)\b`).FindAllStringSubmatch(s.conf.files[name], -1) {
			flags = append(flags, m[1])
		}
	}
	slices.Sort(flags)
	return slices.Compact(flags)
}
