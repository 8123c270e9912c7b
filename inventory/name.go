package inventory

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// What names are made of. None of these characters means anything to a shell,
// to SSH or to a pattern.
var (
	nameExpr = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)
	varExpr  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	userExpr = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,252}$`)
	portExpr = regexp.MustCompile(`:[0-9]+$`)
	zoneExpr = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
)

// isAddress reports whether s is an IP address, without brackets.
func isAddress(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && zoneExpr.MatchString(addr.Zone())
}

// checkHost checks the name of a host, or the address that it is reached at.
func checkHost(what, s string) error {
	if nameExpr.MatchString(s) || isAddress(s) {
		return nil
	}
	f := &tomlfile.Fault{Message: fmt.Sprintf("%q is not %s", s, what)}
	switch {
	case strings.Contains(s, "@"):
		f.Hint = `say the user as user = "…" in the ssh table`
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		f.Hint = "write an IPv6 address without brackets"
	case portExpr.MatchString(s):
		f.Hint = "say the port as port = … in the ssh table"
	default:
		f.Hint = "letters, digits, '.', '-' and '_', not beginning with '-' or '.', or an IP address"
	}
	return f
}

func checkUser(s string) error {
	if userExpr.MatchString(s) {
		return nil
	}
	return &tomlfile.Fault{
		Message: fmt.Sprintf("%q is not a user name", s),
		Hint:    "letters, digits, '.', '-', '_', '@' and '+', not beginning with '-'",
	}
}

func checkGroup(s string) error {
	switch {
	case s == "all" || s == "ungrouped":
		return &tomlfile.Fault{
			Message: fmt.Sprintf("a group cannot be named %q", s),
			Hint:    `what holds for all hosts stands in [vars] and [ssh]; the pattern "all" selects them`,
		}
	case !nameExpr.MatchString(s):
		return &tomlfile.Fault{
			Message: fmt.Sprintf("%q is not a name for a group", s),
			Hint:    "letters, digits, '.', '-' and '_', not beginning with '-' or '.'",
		}
	}
	return nil
}

// CheckVar checks the name of a variable, as ${name} refers to it.
func CheckVar(name string) error {
	switch {
	case name == "version":
		return &tomlfile.Fault{
			Message: "a variable cannot be named version",
			Hint:    "${version} is the version of the release; --version sets it",
		}
	case !varExpr.MatchString(name):
		return &tomlfile.Fault{
			Message: fmt.Sprintf("%q is not a name for a variable", name),
			Hint:    "letters, digits and '_', not beginning with a digit",
		}
	}
	return nil
}

// checkFile checks the path of a key file or of a known_hosts file.
func checkFile(s string) error {
	if s == "" || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not the path of a file", s)}
	}
	return nil
}

// checkJump checks a chain of jump hosts.
func checkJump(chain string) error {
	if chain == "none" {
		return nil
	}
	for hop := range strings.SplitSeq(chain, ",") {
		if _, err := parseTarget(hop); err != nil {
			return &tomlfile.Fault{
				Message: fmt.Sprintf("%q is not a chain of jump hosts: %v", chain, err),
				Hint:    `write "user@host:port", several with commas, or "none"`,
			}
		}
	}
	return nil
}

// A target is [user@]host[:port], as it is written on a command line.
type target struct {
	user string // "" when not said
	host string // a name or an IP address without brackets
	port uint16 // 0 when not said
}

// parseTarget reads and checks [user@]host[:port]. An IPv6 address with a
// port stands in brackets.
func parseTarget(s string) (target, error) {
	t, err := splitTarget(s)
	if err != nil {
		return target{}, err
	}
	return t, checkHost("a host name or an address", t.host)
}

// splitTarget is parseTarget without the check of the host, in which ranges
// may stand.
func splitTarget(s string) (target, error) {
	var t target
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		t.user, s = s[:i], s[i+1:]
		if err := checkUser(t.user); err != nil {
			return target{}, err
		}
	}
	t.host = s
	if isAddress(s) {
		return t, nil
	}
	colon := strings.LastIndexByte(s, ':')
	if colon > strings.LastIndexByte(s, ']') {
		n, ok := number(s[colon+1:])
		if !ok || n < 1 || n > 65535 {
			return target{}, fmt.Errorf("%s is not a port between 1 and 65535", strconv.Quote(s[colon+1:]))
		}
		t.host, t.port = s[:colon], uint16(n)
	}
	if inner, ok := strings.CutPrefix(t.host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && isAddress(inner) {
			t.host = inner
		}
	}
	return t, nil
}
