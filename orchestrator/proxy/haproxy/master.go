package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// An output is a part of what a script wrote, begun by section NAME of
// sectionShell: a line with a byte that no text has.
type output struct {
	name string
	text []byte
}

const sectionShell = `
section() { printf '\n\036%s\n' "$1"; }
`

func sections(out []byte) []output {
	var found []output
	for part := range bytes.SplitSeq(out, []byte("\n\x1e")) {
		name, text, _ := bytes.Cut(part, []byte("\n"))
		found = append(found, output{name: string(name), text: text})
	}
	return found[1:]
}

// line returns the text without the space around it.
func (o output) line() string { return string(bytes.TrimSpace(o.text)) }

// A process is a running haproxy that nobody of its kind has started.
type process struct {
	pid, parent int
	uid         string
	exe         string
	dir         string // what the paths of its arguments are relative to
	args        []string
	foreign     bool // its root folder is not the host's
	workers     bool // it is a master: the one that a reload is asked of
}

const findScript = sectionShell + `
section uid; id -u
section installed; command -v haproxy || ls /usr/sbin/haproxy 2>/dev/null
for f in $(grep -lsE '^haproxy(-?[0-9][0-9.]*)?$' /proc/[0-9]*/comm); do
	d=${f%/comm}
	exe=$(readlink "$d/exe") || exe=
	root=host
	[ "$d/root/." -ef /. ] || [ -z "$exe" ] || root=other
	ids=$(sed -n 's/^PPid:[^0-9]*\([0-9]*\).*/\1/p; s/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "$d/status") || continue
	section process
	printf '%s\n%s\n%s\n%s\n%s\n' "${d#/proc/}" "$ids" "$exe" "$(readlink "$d/cwd")" "$root"
	tr '\000' '\n' <"$d/cmdline"
done
exit 0
`

// processes returns the running haproxys that the host's own files belong to,
// an error when there is none that can be asked.
func processes(ctx context.Context, h plugins.Host) ([]process, error) {
	const op = "find haproxy"
	var out bytes.Buffer
	err := h.Run(ctx, &plugins.Command{Args: []string{"sh", "-c", findScript, "teal"}, Become: true, Stdout: &out})
	if err != nil {
		return nil, failed(h, op, plugins.KindOf(err), err)
	}
	var (
		all            []process
		uid, installed string
	)
	for _, o := range sections(out.Bytes()) {
		switch o.name {
		case "uid":
			uid = o.line()
		case "installed":
			installed = o.line()
		case "process":
			all = append(all, parseProcess(string(o.text)))
		}
	}
	found, contained := roots(all)
	switch {
	case len(found) > 0:
	case contained:
		return nil, failed(h, op, plugins.Unsupported, errors.New("haproxy runs in a container or another root folder only: teal needs one on the host itself"))
	case installed != "":
		return nil, failed(h, op, plugins.Unavailable, fmt.Errorf("%s does not run: start it, with systemctl enable --now haproxy for example", installed))
	default:
		return nil, failed(h, op, plugins.NotFound, errors.New("haproxy is not installed: install it, with apt-get install haproxy for example"))
	}
	readable := slices.DeleteFunc(slices.Clone(found), func(p process) bool { return p.exe == "" || uid != "0" && p.uid != uid })
	if len(readable) == 0 {
		return nil, failed(h, op, plugins.Denied, fmt.Errorf("haproxy runs as user %s and the login as user %s: set become in the inventory so that they are the same", found[0].uid, uid))
	}
	return readable, nil
}

// roots leaves out the processes that another one has started, and those that
// see other files than the host's. A worker may, its master may not.
func roots(all []process) (found []process, contained bool) {
	for _, p := range all {
		if slices.ContainsFunc(all, func(q process) bool { return q.pid == p.parent }) {
			continue
		}
		if p.foreign {
			contained = true
			continue
		}
		p.workers = slices.ContainsFunc(all, func(q process) bool { return q.parent == p.pid })
		found = append(found, p)
	}
	return found, contained
}

// parseProcess reads what findScript writes of a process.
func parseProcess(text string) process {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for len(lines) < 7 {
		lines = append(lines, "")
	}
	number := func(s string) int {
		n, _ := strconv.Atoi(s) // the name of a folder in /proc
		return n
	}
	p := process{
		pid: number(lines[0]), parent: number(lines[1]), uid: lines[2],
		exe: strings.TrimSuffix(lines[3], " (deleted)"), // the package was renewed since
		dir: lines[4], foreign: lines[5] == "other", args: lines[7:],
	}
	if c := p.values("-C"); len(c) > 0 && path.IsAbs(c[len(c)-1]) {
		p.dir = c[len(c)-1]
	}
	return p
}

// values returns what the arguments say for a flag, in order. Files after --
// are files of -f.
func (p process) values(flag string) []string {
	const withValue = "-f -C -p -S -L -n -N -m -x -dr"
	var values []string
	for i := 0; i < len(p.args); i++ {
		arg := p.args[i]
		switch {
		case arg == "--":
			if flag == "-f" {
				values = append(values, p.args[i+1:]...)
			}
			return values
		case len(arg) == 2 && strings.Contains(withValue, arg) && i+1 < len(p.args):
			i++
			if arg == flag {
				values = append(values, p.args[i])
			}
		}
	}
	return values
}

// files returns the files and folders that it reads, in order.
func (p process) files() []string {
	var files []string
	for _, f := range p.values("-f") {
		if !path.IsAbs(f) {
			f = path.Join(p.dir, f)
		}
		files = append(files, path.Clean(f))
	}
	return files
}

// environmentShell defines environment PID, which takes over the variables of
// a process, as its configuration may name some.
const environmentShell = `
environment() {
	while IFS= read -r entry; do
		case ${entry%%=*} in
		'' | [0-9]* | *[!A-Za-z0-9_]* | HAPROXY_* | NOTIFY_SOCKET | LISTEN_* | PPID | UID | EUID | BASHOPTS | SHELLOPTS | BASH_VERSINFO | IFS) ;;
		"$entry") ;;
		*) export "$entry" ;;
		esac
	done <<-END
	$(tr '\000' '\n' <"/proc/$1/environ" 2>/dev/null)
	END
}
`

const checkScript = environmentShell + `
pid=$1 dir=$2 owner=$3 former=$4; shift 4
file=$1 exe=$2; shift 2
if [ -n "$owner" ]; then
	chown "$owner" "$file" || exit
	was=$(sha256sum <"${file%/*}/.${file##*/}.teal-old")
	[ "${was%% *}" = "$former" ] || { echo "somebody else has changed $file at the same time" >&2; exit 1; }
fi
environment "$pid"
cd "$dir" 2>/dev/null || cd /
said=$("$exe" -c "$@" 2>&1) && exit
printf '%s\n' "$said" | grep -F '[ALERT]' | grep -vE 'Fatal errors found|Error\(s\) found' | sed 's/^.*) : //; s/^config : //'
exit 1
`

// configArgs returns the arguments with which haproxy reads the same
// configuration.
func (p process) configArgs() []string {
	var args []string
	for _, f := range p.files() {
		args = append(args, "-f", f)
	}
	for _, name := range p.values("-L") {
		args = append(args, "-L", name)
	}
	return args
}
