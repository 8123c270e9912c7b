package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// A piece is a part of a text: either plain or a reference.
type piece struct {
	text string // plain, or ${name} as written
	name string // of the reference, "" for a plain piece
}

var nameExpr = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// pieces takes a text apart. $${ is a plain ${, and a $ alone is plain.
func pieces(text string) ([]piece, error) {
	var out []piece
	var plain strings.Builder
	for rest := text; rest != ""; {
		i := strings.Index(rest, "${")
		if i < 0 {
			plain.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			plain.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		name, after, closed := strings.Cut(rest[i+2:], "}")
		if !closed || !nameExpr.MatchString(name) {
			return nil, &tomlfile.Fault{
				Message: fmt.Sprintf("%q is not ${name}", firstOf(rest[i:])),
				Hint:    "write $${ for a ${ that teal shall leave alone",
			}
		}
		plain.WriteString(rest[:i])
		if plain.Len() > 0 {
			out = append(out, piece{text: plain.String()})
			plain.Reset()
		}
		out = append(out, piece{text: "${" + name + "}", name: name})
		rest = after
	}
	if plain.Len() > 0 {
		out = append(out, piece{text: plain.String()})
	}
	return out, nil
}

// firstOf returns the begin of a text that starts with "${", as far as it can
// be taken for a reference.
func firstOf(text string) string {
	const longest = 40
	if i := strings.IndexByte(text, '}'); i >= 0 && i < longest {
		return text[:i+1]
	}
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return text
}

// An expander replaces references in the values of an app file.
type expander struct {
	set  map[string]string
	vars map[string]string // nil while no host is known
	open map[string]bool   // keys that could not be resolved yet

	balanced bool // the proxies are load balancers, shared by all hosts
}

// expand replaces the references of one value, or says that they cannot be
// known yet.
func (e *expander) expand(key, text string) (string, bool, error) {
	parts, err := pieces(text)
	if err != nil {
		return "", false, err
	}
	var b strings.Builder
	for _, p := range parts {
		if p.name == "" {
			b.WriteString(p.text)
			continue
		}
		if err := e.allowed(key, p.name); err != nil {
			return "", false, err
		}
		value, ok := e.value(p.name)
		if !ok {
			if e.vars != nil {
				return "", false, e.unknown(p.name)
			}
			e.open[key] = true
			continue
		}
		if err := safeIn(key, p.name, value); err != nil {
			return "", false, err
		}
		b.WriteString(value)
	}
	if e.open[key] {
		return text, false, nil
	}
	return b.String(), true, nil
}

func (e *expander) value(name string) (string, bool) {
	if value, ok := e.set[name]; ok {
		return value, true
	}
	value, ok := e.vars[name]
	return value, ok
}

// allowed refuses references that would make a host differ from the others in
// what must be the same for the whole run.
func (e *expander) allowed(key, name string) error {
	if _, ok := e.set[name]; ok {
		return nil
	}
	top, _, _ := strings.Cut(key, ".")
	switch {
	case lineHere(key) && name == "version":
		return nil
	case lineHere(key):
		return &tomlfile.Fault{
			Message: fmt.Sprintf("${%s} is not known here: the line is run on this side, and not for a host", name),
			Hint:    "it can use ${version} and what --set gives",
		}
	case e.balanced && within(key, []string{"proxy.upstream", "proxy.site"}):
		return &tomlfile.Fault{
			Message: fmt.Sprintf("${%s} is not known here: the load balancers have one configuration for all hosts", name),
			Hint:    "only what --set gives can be used here",
		}
	case slices.Contains([]string{"app", "hosts", "runtime", "rollout", "keep", "plugins"}, top),
		slices.Contains([]string{"proxy.type", "proxy.hosts", "container.protocol", "image.pull_parallel"}, key):
		return &tomlfile.Fault{
			Message: fmt.Sprintf("${%s} is not known here: the value is one for all hosts", name),
			Hint:    "only what --set gives can be used here",
		}
	}
	return nil
}

// lineHere reports whether a key holds a line that is run on the operator's
// machine.
func lineHere(key string) bool { return within(key, []string{"hooks", "rollout.check"}) }

func (e *expander) unknown(name string) error {
	known := slices.Collect(maps.Keys(e.set))
	known = slices.AppendSeq(known, maps.Keys(e.vars))
	slices.Sort(known)
	known = slices.Compact(known)
	f := &tomlfile.Fault{Message: fmt.Sprintf("${%s} is not known", name), Hint: tomlfile.DidYouMean(name, known)}
	switch {
	case f.Hint != "":
	case name == "version":
		f.Hint = "say it with --version"
	default:
		f.Hint = fmt.Sprintf("put %s into the inventory's vars, give it with --set %s=…, or write $${%s} for a text that teal shall leave alone",
			name, name, name)
	}
	return f
}

var plainExpr = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]*$`)

// safeIn refuses values that a shell would interpret in the lines that a shell
// runs: whoever gives the value would run commands with it. Nowhere else does
// a value meet a shell.
func safeIn(key, name, value string) error {
	here := lineHere(key)
	if !here && !within(key, []string{"install.run", "install.once"}) || plainExpr.MatchString(value) {
		return nil
	}
	f := &tomlfile.Fault{
		Message: fmt.Sprintf("the value of ${%s} holds characters that a shell would interpret", name),
		Hint:    fmt.Sprintf(`set container.env = { NAME = "${%s}" } and write "$NAME" in this line`, name),
	}
	if here {
		f.Hint = "the line can use letters, digits and ./:@%+,=-_ of a value"
	}
	return f
}
