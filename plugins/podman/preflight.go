package podman

import (
	"context"
	"errors"
	"fmt"

	"github.com/teal-deploy/teal/plugins"
)

// preflight prints what a host has that containers need, a fact a line.
const preflight = `
n=$(id -u) u=$(id -un)
echo "uid $n"
echo "user $u"
p=$(command -v podman) && echo "program $p"
p=$(command -v newuidmap) && command -v newgidmap >/dev/null && echo "newuidmap $p"
for f in subuid subgid; do
	grep -q '^subid:' /etc/nsswitch.conf 2>/dev/null && echo "$f elsewhere"
	while IFS=: read -r who rest; do
		if [ "$who" = "$u" ] || [ "$who" = "$n" ]; then echo "$f $rest"; fi
	done <"/etc/$f"
done 2>/dev/null
[ -e /sys/fs/cgroup/cgroup.controllers ] && echo "cgroup 2"
[ -d /run/systemd/system ] || exit 0
echo "systemd yes"
if [ "$n" = 0 ]; then
	echo "restart $(systemctl is-enabled podman-restart.service 2>/dev/null)"
else
	[ -e "/var/lib/systemd/linger/$u" ] && echo "linger yes"
	[ -n "${XDG_RUNTIME_DIR:-}" ] || export XDG_RUNTIME_DIR="/run/user/$n"
	echo "restart $(systemctl --user is-enabled podman-restart.service 2>/dev/null)"
fi
exit 0`

// survey asks the host for the facts of preflight.
func survey(ctx context.Context, h plugins.Host) (facts, error) {
	out, err := plugins.Output(ctx, h, "sh", "-c", preflight)
	if err != nil {
		return nil, err
	}
	return parse(out), nil
}

// refusal says what makes the host unfit, and what cures it.
func (f facts) refusal(h plugins.Host) error {
	fault := &plugins.Error{Op: "probe podman", Host: h.String(), Kind: plugins.Denied}
	user := f["user"]
	switch {
	case f["program"] == "":
		return notThere(h)
	case f["uid"] == "0":
		return nil
	case f["newuidmap"] == "":
		fault.Kind = plugins.Unavailable
		fault.Err = errors.New("rootless Podman needs the programs newuidmap and newgidmap: install the package uidmap (or shadow-utils)")
	case f["subuid"] == "" || f["subgid"] == "":
		fault.Err = fmt.Errorf("the user %s has no range of subordinate ids in /etc/subuid and /etc/subgid: "+
			"as root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s, then as %s, podman system migrate", user, user, user)
	case f["systemd"] != "" && f["linger"] == "":
		fault.Err = fmt.Errorf("containers of the user %s end with the user's last session: as root, loginctl enable-linger %s", user, user)
	default:
		return nil
	}
	return fault
}

// warnings say what the operator should know, and what cures it.
func (f facts) warnings() []string {
	var said []string
	enable := "systemctl enable podman-restart.service"
	if f["uid"] != "0" {
		enable = "systemctl --user enable podman-restart.service"
	}
	switch {
	case f["systemd"] == "":
		said = append(said,
			"nothing starts the containers after a reboot, because there is no systemd: let the host run podman start --all --filter restart-policy=always when it starts",
			"an image's own health check is never run, because Podman leaves that to systemd: test with http, tcp or exec")
	case f["restart"] != "enabled":
		said = append(said, "nothing starts the containers after a reboot: "+enable)
	}
	if f["uid"] != "0" && f["cgroup"] != "2" {
		said = append(said, "limits of memory and processors cannot be set for rootless containers: start the host with control groups of version 2")
	}
	return said
}
