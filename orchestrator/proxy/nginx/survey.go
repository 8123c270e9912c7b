package nginx

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
	"github.com/teal-deploy/teal/plugins"
)

// A section is a part of what a script wrote, begun by section NAME of
// sectionShell: a line with a byte that no text has.
type section struct {
	name string
	text []byte
}

const sectionShell = `
section() { printf '\n\036%s\n' "$1"; }
`

func sections(out []byte) []section {
	var secs []section
	for part := range bytes.SplitSeq(out, []byte("\n\x1e")) {
		name, text, _ := bytes.Cut(part, []byte("\n"))
		secs = append(secs, section{name: string(name), text: text})
	}
	return secs[1:]
}

// line returns the text of a section that has one line.
func (s section) line() string { return string(bytes.TrimSpace(s.text)) }

// A confFile is a file that nginx reads.
type confFile struct{ path, text string }

// A survey is everything that Prepare and Check need to know of an nginx.
type survey struct {
	master
	build   string // what nginx -V says
	said    string // by nginx -t
	good    bool   // nginx -t accepts the configuration as it is
	conf    tree
	place   string // of the app's configuration file; empty: there is no folder for it
	current []byte // what stands there; nil: nothing
	taken   ports.Taken
	worker  identity
	folders []folder // from the app's up to the root
}

const inspectScript = sectionShell + `
dir=$1 ports=$2 pid=$3 cwd=$4; shift 4
cd "$cwd" 2>/dev/null || cd /
section build; "$@" -V 2>&1
section dump; "$@" -T 2>&1; code=$?
section code; echo $code
section sockets; ls -l "/proc/$pid/fd" | sed -n 's/.*socket:\[\([0-9]*\)\].*/\1/p'
section ports; grep -hiE "^ *[0-9]+: [0-9A-F]+:($ports) " /proc/net/tcp /proc/net/tcp6
for k in $(cat /proc/$pid/task/*/children 2>/dev/null || pgrep -P "$pid"); do
	case $(tr -d '\000' <"/proc/$k/cmdline") in
	"nginx: worker process"*) section worker; cat "/proc/$k/status"; break ;;
	esac
done
section folders
while :; do
	ls -ldn "${dir:-/}" 2>/dev/null
	[ -n "$dir" ] || break
	dir=${dir%/*}
done
section ephemeral; cat /proc/sys/net/ipv4/ip_local_port_range
section reserved; cat /proc/sys/net/ipv4/ip_local_reserved_ports
exit 0
`

// survey finds the nginx of the app and looks at it.
func (p *Proxy) survey(ctx context.Context, h plugins.Host, l proxy.Layout) (survey, error) {
	found, err := masters(ctx, h)
	if err != nil {
		return survey{}, err
	}
	var (
		fit    []survey
		unread error // of an nginx that cannot be looked at, or ended meanwhile
	)
	for _, m := range found {
		if c := m.flag("-c"); p.Config != "" && path.IsAbs(c) && path.Clean(c) != path.Clean(p.Config) {
			continue
		}
		s, err := inspect(ctx, h, l, m)
		if err != nil {
			unread = err
			continue
		}
		if p.Config == "" || s.conf.main == path.Clean(p.Config) {
			fit = append(fit, s)
		}
	}
	if len(fit) > 1 {
		if own := slices.DeleteFunc(slices.Clone(fit), func(s survey) bool { return s.current == nil }); len(own) > 0 {
			fit = own
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) == 0 && unread != nil:
		return survey{}, unread
	case len(fit) == 0:
		return survey{}, failed(h, "find nginx", plugins.NotFound, fmt.Errorf("none of %d that run reads %s", len(found), p.Config))
	}
	var mains []string
	for _, s := range fit {
		mains = append(mains, s.conf.main)
	}
	return survey{}, failed(h, "find nginx", plugins.Conflict, fmt.Errorf("several run, with %s: say which", strings.Join(mains, " and ")))
}

// inspect looks at one nginx.
func inspect(ctx context.Context, h plugins.Host, l proxy.Layout, m master) (survey, error) {
	args := []string{"sh", "-c", inspectScript, "teal", l.Dir, ports.Pattern(l), strconv.Itoa(m.pid), m.cwd, m.exe}
	var out bytes.Buffer
	err := h.Run(ctx, &plugins.Command{Args: append(args, m.flags...), Become: true, Stdout: &out})
	if err != nil {
		return survey{}, failed(h, "look at nginx", plugins.KindOf(err), err)
	}
	s := survey{master: m}
	var files []confFile
	for _, sec := range sections(out.Bytes()) {
		switch sec.name {
		case "build":
			s.build = sec.line()
		case "dump":
			s.said, files = parseDump(string(sec.text))
		case "code":
			s.good = sec.line() == "0"
		case "sockets":
			s.taken.Own = strings.Fields(sec.line())
		case "ports":
			s.taken.Sockets = ports.Parse(sec.line())
		case "worker":
			s.worker = parseIdentity(sec.line())
		case "folders":
			s.folders = parseFolders(sec.line())
		case "ephemeral":
			s.taken.Ephemeral = sec.line()
		case "reserved":
			s.taken.Reserved = sec.line()
		}
	}
	if !s.good {
		// What nginx refuses it does not print.
		if files, err = mainFile(ctx, h, m.mainPath(s.build)); err != nil {
			return survey{}, err
		}
	}
	if s.conf, err = newTree(files); err != nil {
		return survey{}, failed(h, "read the configuration of nginx", plugins.Unsupported, err)
	}
	if place, ok := s.conf.place("teal-" + l.App + ".conf"); ok {
		s.place = place
		if current, ok := s.conf.files[place]; ok {
			s.current = []byte(current)
		}
	}
	return s, nil
}

// mainFile reads the main file alone.
func mainFile(ctx context.Context, h plugins.Host, name string) ([]confFile, error) {
	var out bytes.Buffer
	err := h.Run(ctx, &plugins.Command{Args: []string{"cat", name}, Become: true, Stdout: &out})
	if err != nil {
		return nil, failed(h, "read "+name, plugins.KindOf(err), err)
	}
	return []confFile{{path: name, text: out.String()}}, nil
}

// parseDump splits what nginx -T writes: what it says of the configuration,
// then each file after a line with its name.
func parseDump(text string) (said string, files []confFile) {
	const prefix = "# configuration file "
	var cur *strings.Builder
	var b strings.Builder
	cur = &b
	flush := func() {
		if len(files) > 0 {
			files[len(files)-1].text = cur.String()
		} else {
			said = cur.String()
		}
		cur.Reset()
	}
	for l := range strings.Lines(text) {
		name, isName := strings.CutPrefix(l, prefix)
		name, isPath := strings.CutSuffix(strings.TrimSpace(name), ":")
		if isName && isPath && path.IsAbs(name) {
			flush()
			files = append(files, confFile{path: path.Clean(name)})
			continue
		}
		cur.WriteString(l)
	}
	flush()
	return said, files
}

// errorLog returns the file that nginx reports lost reloads in, "" when that is
// none.
func (s survey) errorLog() string {
	log := option(s.build, "error-log-path")
	if log == "" {
		log = "logs/error.log"
	}
	for _, d := range find(s.conf.root, "error_log") {
		if len(d.args) > 0 {
			log = d.args[0]
		}
	}
	switch {
	case log == "stderr" || strings.HasPrefix(log, "syslog:") || strings.HasPrefix(log, "memory:"):
		return ""
	case path.IsAbs(log):
		return log
	}
	return path.Join(s.prefix(s.build), log)
}
