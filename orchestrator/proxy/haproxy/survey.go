package haproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
	"github.com/teal-deploy/teal/plugins"
)

// A survey is everything that Prepare and Check need to know of a haproxy.
type survey struct {
	process
	version string
	good    bool   // haproxy -c accepts the configuration as it is
	said    string // by haproxy -c
	files   []confFile
	folder  bool // the last argument of -f is a folder
	parts   []*part
	ports   ports.Taken
}

const inspectScript = sectionShell + environmentShell + `
pid=$1 dir=$2 ports=$3 exe=$4; shift 4
cd "$dir" 2>/dev/null || cd /
show() { section file; printf '%s\n%s\n' "$1" "$(stat -L -c '%u:%g %a' "$1")"; cat "$1"; }
section version; "$exe" -v
section check; (environment "$pid"; exec "$exe" -c "$@" 2>&1); code=$?
section code; echo $code
LC_ALL=C
for f; do
	[ "$f" != -f ] || continue
	if [ -d "$f" ]; then
		section folder; echo "$f"
		for g in "$f"/*.cfg; do [ ! -f "$g" ] || show "$g"; done
	elif [ -f "$f" ]; then
		show "$f"
	fi
done
section inodes
for k in "$pid" $(cat "/proc/$pid"/task/*/children 2>/dev/null || pgrep -P "$pid"); do
	ls -l "/proc/$k/fd" | sed -n 's/.*socket:\[\([0-9]*\)\].*/\1/p'
done
section ports; grep -hiE "^ *[0-9]+: [0-9A-F]+:($ports) " /proc/net/tcp /proc/net/tcp6
section ephemeral; cat /proc/sys/net/ipv4/ip_local_port_range
section reserved; cat /proc/sys/net/ipv4/ip_local_reserved_ports
exit 0
`

// survey finds the haproxy of the app and looks at it.
func (p *Proxy) survey(ctx context.Context, h plugins.Host, l proxy.Layout) (survey, error) {
	const op = "find haproxy"
	found, err := processes(ctx, h)
	if err != nil {
		return survey{}, err
	}
	if p.Config != "" {
		all := len(found)
		found = slices.DeleteFunc(found, func(q process) bool { return !slices.Contains(q.files(), path.Clean(p.Config)) })
		if len(found) == 0 {
			return survey{}, failed(h, op, plugins.NotFound, fmt.Errorf("none of %d that run reads %s", all, p.Config))
		}
	}
	var (
		fit    []survey
		unread error // of a haproxy that cannot be looked at, or ended meanwhile
	)
	for _, q := range found {
		s, err := inspect(ctx, h, l, q)
		if err != nil {
			unread = err
			continue
		}
		fit = append(fit, s)
	}
	if len(fit) > 1 {
		prepared := slices.DeleteFunc(slices.Clone(fit), func(s survey) bool { _, ok := s.holder(l.App); return !ok })
		if len(prepared) > 0 {
			fit = prepared
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) == 0:
		return survey{}, unread
	}
	var all []string
	for _, s := range fit {
		all = append(all, strings.Join(s.process.files(), " "))
	}
	return survey{}, failed(h, op, plugins.Conflict, fmt.Errorf("several run, with %s: say which", strings.Join(all, " and ")))
}

// inspect looks at one haproxy.
func inspect(ctx context.Context, h plugins.Host, l proxy.Layout, q process) (survey, error) {
	args := []string{"sh", "-c", inspectScript, "teal", strconv.Itoa(q.pid), q.dir, ports.Pattern(l), q.exe}
	var out bytes.Buffer
	err := h.Run(ctx, &plugins.Command{Args: append(args, q.configArgs()...), Become: true, Stdout: &out})
	if err != nil {
		return survey{}, failed(h, "look at haproxy", plugins.KindOf(err), err)
	}
	s := survey{process: q}
	for _, o := range sections(out.Bytes()) {
		switch o.name {
		case "version":
			s.version = version(o.line())
		case "check":
			s.said = o.line()
		case "code":
			s.good = o.line() == "0"
		case "folder":
			s.folder = true
		case "file":
			f := parseFile(o.text)
			s.files = append(s.files, f)
			s.folder = s.folder && !slices.Contains(s.process.files(), f.path)
		case "inodes":
			s.ports.Own = strings.Fields(o.line())
		case "ports":
			s.ports.Sockets = ports.Parse(o.line())
		case "ephemeral":
			s.ports.Ephemeral = o.line()
		case "reserved":
			s.ports.Reserved = o.line()
		}
	}
	if len(s.files) == 0 && !s.folder {
		return survey{}, failed(h, "look at haproxy", plugins.Unsupported, fmt.Errorf("the process %d reads no file that can be found", q.pid))
	}
	s.parts = parse(s.files)
	return s, nil
}

// parseFile reads what inspectScript writes of a file.
func parseFile(text []byte) confFile {
	name, rest, _ := bytes.Cut(text, []byte("\n"))
	status, content, _ := bytes.Cut(rest, []byte("\n"))
	owner, mode, _ := strings.Cut(string(status), " ")
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		bits = 0o644
	}
	return confFile{path: string(name), owner: owner, mode: uint32(bits), text: content}
}

// version returns the number in what haproxy -v says, "" when there is none.
func version(said string) string {
	for f := range strings.FieldsSeq(said) {
		if f[0] >= '0' && f[0] <= '9' && strings.Contains(f, ".") {
			return f
		}
	}
	return ""
}

// atLeast reports whether the version is not older than major.minor; one that
// cannot be read is taken to be new.
func (s survey) atLeast(major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(s.version, "%d.%d", &a, &b); err != nil {
		return true
	}
	return a > major || a == major && b >= minor
}

// holder returns the file that has the app's block.
func (s survey) holder(app string) (confFile, bool) {
	for _, f := range s.files {
		if _, _, ok := span(f.text, app); ok {
			return f, true
		}
	}
	return confFile{}, false
}

// A writing is the file that the app's block goes to.
type writing struct {
	file   confFile // as it is; one that is new has no owner
	text   []byte   // as it shall be
	shared bool     // the file is the user's own
}

// writing decides where the block goes: where it is already, else to a file of
// its own when haproxy reads a folder last, else to the end of the last file.
// It moves to the end when a section that was added behind it would take over
// its defaults.
func (s survey) writing(l proxy.Layout, block []byte) (writing, error) {
	file, ok := s.holder(l.App)
	mine := ok && path.Base(file.path) == ownName(l.App)
	inherited := heirs(s.parts, l)
	switch {
	case mine:
	case ok:
		here := slices.ContainsFunc(inherited, func(p *part) bool { return p.file == file.path })
		return writing{file: file, text: replace(file.text, l.App, block, here), shared: true}, nil
	case s.folder:
		dirs := s.process.files()
		file = confFile{path: path.Join(dirs[len(dirs)-1], ownName(l.App)), mode: 0o644}
		inherited = headless(s.files, file.path)
	default:
		last := s.files[len(s.files)-1]
		return writing{file: last, text: replace(last.text, l.App, block, false), shared: true}, nil
	}
	if len(inherited) > 0 {
		p := inherited[0]
		return writing{}, fmt.Errorf("%s:%d: the section %s would take over the defaults of %s, which is read before it: begin that file with a defaults section", p.file, p.line, p.name(), file.path)
	}
	return writing{file: file, text: block}, nil
}

// headless returns the sections that take over defaults of a file that is read
// before: those of a folder's later files, up to their first own defaults.
func headless(files []confFile, before string) []*part {
	var found []*part
	for _, p := range parse(slices.DeleteFunc(slices.Clone(files), func(f confFile) bool {
		return path.Dir(f.path) != path.Dir(before) || f.path < before
	})) {
		if p.kind() == "defaults" {
			break
		}
		if p.isProxy() && p.after("from") == "" {
			found = append(found, p)
		}
	}
	return found
}

// check returns the arguments that let haproxy check its configuration with a
// file in its place, which first gets its owner back.
func (s survey) check(w writing) []string {
	owner, former := "", ""
	if w.shared && !bytes.Equal(bytes.TrimRight(w.text, "\n"), bytes.TrimRight(w.file.text, "\n")) {
		sum := sha256.Sum256(w.file.text)
		owner, former = w.file.owner, hex.EncodeToString(sum[:])
	}
	args := []string{"sh", "-c", checkScript, "teal", strconv.Itoa(s.pid), s.dir, owner, former, w.file.path, s.exe}
	return append(args, s.configArgs()...)
}

// admin returns the address of an admin socket with the level that is needed.
func (s survey) admin() (string, error) {
	weak := ""
	for _, p := range s.parts {
		if p.kind() != "global" {
			continue
		}
		for _, d := range p.find("stats", "socket") {
			if len(d.words) < 3 {
				continue
			}
			address := d.words[2]
			for _, prefix := range []string{"unix@", "ipv4@", "ipv6@"} {
				address = strings.TrimPrefix(address, prefix)
			}
			usable := path.IsAbs(address) || strings.Contains(address, ":") && !strings.Contains(address, "@")
			switch {
			case !usable || strings.Contains(address, "$"):
			case d.after("level") == "admin":
				return address, nil
			default:
				weak = fmt.Sprintf("%s:%d: ", d.file, d.line)
			}
		}
	}
	if weak != "" {
		return "", errors.New(weak + "the admin socket must have the level admin: add `level admin` to the line and reload haproxy")
	}
	return "", errors.New("haproxy has no admin socket: add `stats socket /run/haproxy/admin.sock mode 660 group haproxy level admin expose-fd listeners` to the global section and reload haproxy")
}
