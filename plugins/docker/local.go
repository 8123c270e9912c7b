package docker

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// findTool prints the words with which the login user can speak to the engine
// behind the socket $1, or nothing: docker or curl, alone or with sudo. Each
// is tried, because rights are not to be read off a file's mode.
const findTool = `
s=$1
d=$(command -v docker); c=$(command -v curl); n=$(command -v sudo)
for p in "" "$n -n"; do
	[ "$p" = " -n" ] && continue
	if [ -n "$d" ] && $p "$d" -H "unix://$s" version >/dev/null 2>&1; then echo docker $p "$d"; exit; fi
	if [ -n "$c" ] && $p "$c" -sf --unix-socket "$s" http://localhost/_ping >/dev/null 2>&1; then echo curl $p "$c"; exit; fi
done
exit 0`

// Scripts that make a command succeed when the container is gone already.
const (
	dockerScript = `out=$("$@" 2>&1) && exit 0
code=$?
case $out in *"No such container"*) exit 0 ;; esac
printf '%s\n' "$out" >&2
exit "$code"`
	curlScript = `status=$("$@")
case $status in 2?? | 304 | 404) exit 0 ;; esac
echo "the engine answered with status $status" >&2
exit 1`
	curlPIDScript = `"$@" | sed -n 's/.*"Pid":\([0-9][0-9]*\).*/\1/p'`
)

// LocalCommands implements plugins.LocalRemover: with Docker's own client on
// the host, or with curl where that is missing.
func (r *Runtime) LocalCommands(ctx context.Context, h plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	route, err := r.Route(ctx, h)
	if err != nil {
		return plugins.LocalCommands{}, err
	}
	out, err := plugins.Output(ctx, h, "sh", "-c", findTool, "teal", route.Socket)
	if err != nil {
		return plugins.LocalCommands{}, err
	}
	words := strings.Fields(string(bytes.TrimSpace(out)))
	if len(words) < 2 {
		return plugins.LocalCommands{}, &plugins.Error{
			Op: "local commands for " + id, Host: h.String(), Kind: plugins.Unsupported,
			Err: errors.New("neither docker nor curl can speak to " + route.Socket + " for the login user: install one of them, " +
				"and add the user to the group docker or allow sudo without a password"),
		}
	}
	seconds := strconv.Itoa(int(math.Ceil(max(grace, 0).Seconds())))
	if words[0] == "docker" {
		return dockerCommands(words[1:], route.Socket, id, seconds), nil
	}
	return curlCommands(words[1:], route.Socket, id, seconds), nil
}

func dockerCommands(docker []string, socket, id, seconds string) plugins.LocalCommands {
	run := func(args ...string) []string {
		return slices.Concat(docker, []string{"-H", "unix://" + socket}, args)
	}
	return plugins.LocalCommands{
		PID:    run("inspect", "--type", "container", "-f", "{{.State.Pid}}", id),
		Stop:   slices.Concat([]string{"sh", "-c", dockerScript, "teal"}, run("stop", "-t", seconds, id)),
		Remove: slices.Concat([]string{"sh", "-c", dockerScript, "teal"}, run("rm", "-v", id)),
	}
}

func curlCommands(curl []string, socket, id, seconds string) plugins.LocalCommands {
	url := "http://localhost/containers/" + id
	run := func(script string, args ...string) []string {
		return slices.Concat([]string{"sh", "-c", script, "teal"}, curl, []string{"-s", "--unix-socket", socket}, args)
	}
	status := func(method, url string) []string {
		return run(curlScript, "-o", "/dev/null", "-w", "%{http_code}", "-X", method, url)
	}
	return plugins.LocalCommands{
		PID:    run(curlPIDScript, url+"/json"),
		Stop:   status("POST", url+"/stop?t="+seconds),
		Remove: status("DELETE", url+"?v=1"),
	}
}
