package haproxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// takenWithin is how long the new workers may take to answer everywhere, when
// there are some.
const takenWithin = 10 * time.Second

// Exit codes of reloadScript.
const (
	codeNoSignal = 10
	codeLost     = 11 // the master goes on with the workers it had
)

// reloadScript tells the master to reload and waits until it has a new worker.
// A master that fails starts itself anew to wait for its old workers, and says
// so in its environment. $2 is how many tenths of a second that may take: a
// large configuration is read for long.
const reloadScript = `
pid=$1 limit=$2
trap '' PIPE
children() { cat "/proc/$pid"/task/*/children 2>/dev/null || pgrep -P "$pid"; }
state() { tr '\000' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -E '^HAPROXY_(PROCESSES|MWORKER_WAIT_ONLY)='; }
log=$(readlink "/proc/$pid/fd/2") size=0
case $log in
/dev/* | *:*) log= ;;
*) [ -f "$log" ] && size=$(wc -c <"$log") || log= ;;
esac
old=" $(children | tr '\n' ' ') "
was=$(state)
kill -USR2 "$pid" || exit 10
tenths=0
while [ $tenths -lt "$limit" ]; do
	sleep 0.1 2>/dev/null || { sleep 1; tenths=$((tenths + 9)); }
	tenths=$((tenths + 1))
	now=$(state)
	for k in $(children); do
		case $old in
		*" $k "*) ;;
		*) exit 0 ;;
		esac
	done
	[ "$now" = "$was" ] && continue
	case $now in
	*HAPROXY_MWORKER_WAIT_ONLY=1*) break ;;
	esac
done
if [ -n "$log" ]; then
	tail -c "+$((size + 1))" "$log" | grep -F '[ALERT]' | tail -n 5 >&2
elif command -v journalctl >/dev/null; then
	journalctl -q -o cat -n 50 --since=-1m "_PID=$pid" 2>/dev/null | grep -F '[ALERT]' | tail -n 5 >&2
fi
exit 11
`

// reload makes haproxy read its configuration and returns nil when its master
// has a new worker. The old one takes no new connection then, and ends when
// those it has are done.
func (s survey) reload(ctx context.Context, h plugins.Host) error {
	const limit = 300 // tenths of a second
	args := []string{"sh", "-c", reloadScript, "teal", strconv.Itoa(s.pid), strconv.Itoa(limit)}
	err := h.Run(ctx, &plugins.Command{Args: args, Become: true})
	exit, ran := errors.AsType[*plugins.ExitError](err)
	switch {
	case err == nil:
		return nil
	case ran && exit.Code == codeNoSignal:
		err = fmt.Errorf("signal the haproxy process %d: %w", s.pid, err)
	case ran && exit.Code == codeLost:
		err = fmt.Errorf("haproxy did not take the configuration and goes on with the former one: %s", alerts(string(exit.Stderr)))
	}
	return fmt.Errorf("reload: %w", err)
}

// alerts shortens what haproxy says to the alerts, without what only repeats
// that there are some.
func alerts(said string) string {
	var found []string
	for line := range strings.Lines(said) {
		_, alert, ok := strings.Cut(line, "[ALERT]")
		if !ok {
			continue
		}
		if _, rest, ok := strings.Cut(alert, ") : "); ok {
			alert = rest
		}
		alert = strings.TrimPrefix(strings.TrimSpace(alert), "config : ")
		if alert == "" || strings.HasPrefix(alert, "Error(s) found in") || strings.HasPrefix(alert, "Fatal errors found") || len(found) == 5 {
			continue
		}
		found = append(found, alert)
	}
	if len(found) == 0 {
		return "its log says why"
	}
	return strings.Join(found, "; ")
}
