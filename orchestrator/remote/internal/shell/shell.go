// Package shell turns a command into what a host's login shell gets, and into
// what follows on standard input.
//
// sshd hands one line to the login shell, and login shells differ: fish reads
// a backslash in single quotes in its own way, csh an exclamation mark and a
// line break. So the line holds none of these: the POSIX script that shall run
// is written with octal escapes for everything but harmless characters, and a
// POSIX shell decodes it:
//
//	sh -c 'eval "$(printf "START")"' teal 'SCRIPT'
//
// START makes sure that SCRIPT leads a process group of its own, through sudo
// when the command shall become root. SCRIPT sets the environment, prints the
// mark (what came before it is chatter of the login shell), reads from standard
// input what must not stand on a command line, and runs the command under the
// leash.
package shell

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// Mark separates what login shells and sudo print from what the command
// prints. It also says that sudo took the password.
const Mark = "<teal:run>\n"

// syncLine ends what standard input may hold of a password that sudo did not ask
// for.
const syncLine = ":teal:sync:"

// maxLine bounds the line for the login shell; a single argument may have
// 128 KiB on Linux. A longer script travels over standard input.
const maxLine = 96 << 10

// startScript makes $1, an encoded script, lead its process group. sshd gives
// every command one, but a login shell may stand between, and other servers
// give none. /proc tells, and setsid cures.
const startScript = `o=$1
[ -z "$2" ] || export SSH_AUTH_SOCK="$2"
{ read -r t </proc/$$/stat; } 2>/dev/null && set -- ${t##*) }
if [ "$3" = $$ ] || ! command -v setsid >/dev/null
then eval "$(printf "$o")"
else exec setsid sh -c 'eval "$(printf "$1")"' teal "$o"
fi`

// prologue sets what holds for every command. Its PATH ends with the folders
// of nginx, haproxy and ip, which the path of an ordinary login lacks.
const prologue = `PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin LC_ALL=C
export PATH LC_ALL
`

// syncScript skips standard input up to the sync line.
const syncScript = `until [ "$t" = ` + syncLine + ` ]; do IFS= read -r t || exit 255; done
`

// headerScript runs the first line of standard input: variables whose values
// may be secret, and scripts that are too long for a command line.
const headerScript = `IFS= read -r t || exit 255
eval "$(printf %b "$t")"
`

// leashScript runs "$@" without standard input. The watcher waits for the end
// of file that a closed channel or a dead connection brings; the main shell
// survives the TERM, to report how the command ended.
const leashScript = `exec 3<&0 4>&2 </dev/null 2>/dev/null
trap : TERM
(while read -r t; do :; done
 exec </dev/null
 trap '' TERM; kill -TERM 0; sleep 1; kill -KILL 0) <&3 >/dev/null 3<&- 4>&- &
w=$!
(exec "$@") 2>&4 3<&- 4>&-
r=$?
kill "$w"
exit "$r"`

// pumpScript carries standard input from the channel to the command in frames:
// a line with the number of bytes, then the bytes; 0 ends it. So the end of
// the input differs from the end of the connection, and a command never takes
// a half of its input for the whole. Without an end, the process group dies
// before its pipe is closed. Exit code 141 of dd: the command reads no more.
const pumpScript = `echo $$
while s=lost; IFS= read -r n; do
  s=end; [ "$n" != 0 ] || break
  dd bs="$n" count=1 iflag=fullblock 2>/dev/null
  case $? in
  0) ;;
  141) break ;;
  *) s=lost; echo 'teal: dd of this host cannot pass standard input on' >&2; break ;;
  esac
done
if [ $s = end ]; then exec >/dev/null; while read -r t; do :; done; fi
(trap '' TERM; kill -TERM 0; sleep 1; kill -KILL 0) 2>/dev/null &`

// pipeScript runs "$@" with what the pump gives.
func pipeScript() string {
	return `exec 3<&0 4>&2 </dev/null 2>/dev/null
trap : TERM
sh -c ` + Quote(pumpScript) + ` teal <&3 2>&4 3<&- 4>&- | {
 exec 3<&-
 trap : TERM
 IFS= read -r w
 (exec "$@") 2>&4 4>&-
 r=$?
 kill "$w"
 exit "$r"
}
exit "$?"`
}

// sudoScript runs startScript as root. The agent's socket is an argument
// because sudo clears the environment. -k makes sudo ask for the password
// even if it remembers one: then it is known who reads the first line.
func sudoScript(password bool) string {
	flags := "-n"
	if password {
		flags = "-k -S -p ''"
	}
	return "exec sudo " + flags + " -H -- sh -c " + Quote(startScript) + ` teal "$1" "$SSH_AUTH_SOCK"`
}

// A Become says how a command gets the rights of root.
type Become int

// The ways to become root, or not to.
const (
	None         Become = iota // as the login user
	Sudo                       // sudo asks for nothing
	SudoPassword               // sudo asks for a password
)

// A Wire is what goes to the host for one command: the line for the login
// shell, then, on standard input, the lines that follow the mark.
type Wire struct {
	Line   string
	Header string // "" or lines that are sent before standard input proper
}

// Encode returns what goes to the host for cmd. An error says what no shell can
// pass on. keepAgent leaves the command the
// forwarded agent.
func Encode(cmd *plugins.Command, b Become, keepAgent bool) (Wire, error) {
	if err := check(cmd); err != nil {
		return Wire{}, err
	}
	head := prologue
	if !keepAgent {
		head += "unset SSH_AUTH_SOCK\n"
	}
	head += "printf " + Quote(strings.ReplaceAll(Mark, "\n", `\n`)) + "\n"
	var sync string
	if b == SudoPassword {
		head += syncScript
		sync = syncLine + "\n"
	}
	header := exports(cmd.Env)
	body := leashScript
	if cmd.Stdin != nil {
		body = pipeScript()
	}
	body = "set -- " + quoteAll(cmd.Args) + "\n" + body

	start := startScript
	if b != None {
		start = sudoScript(b == SudoPassword)
	}
	if header != "" {
		head += headerScript
	}
	w := Wire{Line: line(start, head+body)}
	if len(w.Line) > maxLine {
		if header == "" {
			head += headerScript
		}
		header += body
		w.Line = line(start, head+":")
	}
	if header != "" {
		header = escapeLine(header) + "\n"
	}
	w.Header = sync + header
	return w, nil
}

// line is what the login shell gets.
func line(start, script string) string {
	return `sh -c 'eval "$(printf "` + octal(start) + `")"' teal '` + octal(script) + `'`
}

// check refuses what no POSIX shell can pass on.
func check(cmd *plugins.Command) error {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return fmt.Errorf("no program")
	}
	for _, a := range cmd.Args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("argument %q holds a zero byte", a)
		}
	}
	for k, v := range cmd.Env {
		if !isName(k) {
			return fmt.Errorf("%q is no name of an environment variable", k)
		}
		if strings.ContainsRune(v, 0) {
			return fmt.Errorf("environment variable %s holds a zero byte", k)
		}
	}
	return nil
}

func isName(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// exports returns the script that sets env, sorted.
func exports(env map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(env)) {
		b.WriteString("export " + k + "=" + Quote(env[k]) + "\n")
	}
	return b.String()
}

// Quote makes s one word of a POSIX shell.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func quoteAll(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = Quote(a)
	}
	return strings.Join(quoted, " ")
}

// octal writes s as a format of printf with nothing in it that any shell takes
// for more than a character, neither in single nor in double quotes.
func octal(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if harmless(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

func harmless(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte(" /._=:,+@-", c) >= 0
}

// escapeLine makes s one line that printf's %b turns back.
func escapeLine(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(s)
}
