package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// A master is a running nginx.
type master struct {
	pid   int
	uid   string
	exe   string
	cwd   string
	flags []string // -c, -p, -g and -e as it was started
}

const findScript = sectionShell + `
section uid; id -u
section installed; command -v nginx
for f in $(grep -l '^nginx: master process' /proc/[0-9]*/cmdline 2>/dev/null); do
	d=${f%/cmdline}
	exe=$(readlink "$d/exe") || exe=
	if [ -n "$exe" ] && ! [ "$d/root/." -ef /. ]; then
		section contained
		continue
	fi
	uid=$(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "$d/status") || continue
	section master
	printf '%s\n%s\n%s\n%s\n' "${d#/proc/}" "$uid" "$exe" "$(readlink "$d/cwd")"
	tr -d '\000' <"$d/cmdline"
done
exit 0
`

// masters returns the running nginx processes that the host's own files
// belong to, an error when there is none that can be asked.
func masters(ctx context.Context, h plugins.Host) ([]master, error) {
	const op = "find nginx"
	var out bytes.Buffer
	err := h.Run(ctx, &plugins.Command{Args: []string{"sh", "-c", findScript, "teal"}, Become: true, Stdout: &out})
	if err != nil {
		return nil, failed(h, op, plugins.KindOf(err), err)
	}
	var (
		found          []master
		uid, installed string
		contained      int
	)
	for _, sec := range sections(out.Bytes()) {
		switch sec.name {
		case "uid":
			uid = sec.line()
		case "installed":
			installed = sec.line()
		case "contained":
			contained++
		case "master":
			found = append(found, parseMaster(sec.line()))
		}
	}
	switch {
	case len(found) > 0:
	case contained > 0:
		return nil, failed(h, op, plugins.Unsupported, errors.New("nginx runs in a container only: teal needs one on the host itself"))
	case installed != "":
		return nil, failed(h, op, plugins.Unavailable, fmt.Errorf("%s does not run: start it, with systemctl enable --now nginx for example", installed))
	default:
		return nil, failed(h, op, plugins.NotFound, errors.New("nginx is not installed: install it, with apt-get install nginx for example"))
	}
	mine := slices.DeleteFunc(slices.Clone(found), func(m master) bool { return m.exe == "" || m.uid != uid })
	if len(mine) == 0 {
		return nil, failed(h, op, plugins.Denied, fmt.Errorf("nginx runs as user %s and the login as user %s: set become in the inventory so that they are the same", found[0].uid, uid))
	}
	return mine, nil
}

// parseMaster reads what findScript writes of a master.
func parseMaster(text string) master {
	lines := strings.SplitN(text, "\n", 5)
	for len(lines) < 5 {
		lines = append(lines, "")
	}
	pid, _ := strconv.Atoi(lines[0]) // the name of a folder in /proc
	return master{
		pid:   pid,
		uid:   lines[1],
		exe:   strings.TrimSuffix(lines[2], " (deleted)"), // the package was renewed since
		cwd:   lines[3],
		flags: parseTitle(lines[4]),
	}
}

// parseTitle reads the flags that say which configuration a master has out of
// the title of its process: its arguments, joined by blanks.
func parseTitle(title string) []string {
	words := strings.Fields(strings.TrimPrefix(title, "nginx: master process"))
	isFlag := func(w string) bool { return len(w) > 1 && w[0] == '-' && strings.IndexByte("cpgeq", w[1]) >= 0 }
	var flags []string
	for i := 0; i < len(words); i++ {
		if !isFlag(words[i]) || words[i][1] == 'q' {
			continue
		}
		flag, value := words[i][:2], words[i][2:]
		for i+1 < len(words) && (value == "" || flag == "-g" && !isFlag(words[i+1])) {
			i++
			value = strings.TrimSpace(value + " " + words[i])
		}
		flags = append(flags, flag, value)
	}
	return flags
}

// flag returns the value of a flag of a master, "" when it has none.
func (m master) flag(name string) string {
	if i := slices.Index(m.flags, name); i >= 0 {
		return m.flags[i+1]
	}
	return ""
}

// command returns the arguments that run the master's own binary on its own
// configuration.
func (m master) command(args ...string) []string {
	cmd := []string{"sh", "-c", `cd "$1" 2>/dev/null || cd /; shift; exec "$@"`, "teal", m.cwd, m.exe}
	return append(append(cmd, m.flags...), args...)
}

// option returns the value of a configure argument of a build.
func option(build, name string) string {
	m := regexp.MustCompile(`--` + name + `=(\S+)`).FindStringSubmatch(build)
	if m == nil {
		return ""
	}
	return m[1]
}

// prefix returns the folder that paths of the command line and of logs are
// relative to.
func (m master) prefix(build string) string {
	p := m.flag("-p")
	if p == "" {
		p = option(build, "prefix")
	}
	if p == "" {
		p = "/usr/local/nginx"
	}
	if !path.IsAbs(p) {
		p = path.Join(m.cwd, p)
	}
	return p
}

// mainPath returns the path of the main configuration file.
func (m master) mainPath(build string) string {
	for _, p := range []string{m.flag("-c"), option(build, "conf-path"), "conf/nginx.conf"} {
		switch {
		case path.IsAbs(p):
			return path.Clean(p)
		case p != "":
			return path.Join(m.prefix(build), p)
		}
	}
	return ""
}
