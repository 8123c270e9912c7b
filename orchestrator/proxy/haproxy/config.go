package haproxy

import (
	"bytes"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// A directive is a line of a configuration.
type directive struct {
	file  string
	line  int
	words []string
}

// has reports whether the words contain those given, in a row.
func (d directive) has(words ...string) bool {
	for i := range d.words {
		if i+len(words) <= len(d.words) && slices.Equal(d.words[i:i+len(words)], words) {
			return true
		}
	}
	return false
}

// after returns the word that follows one, "" when there is none.
func (d directive) after(word string) string {
	if i := slices.Index(d.words, word); i >= 0 && i+1 < len(d.words) {
		return d.words[i+1]
	}
	return ""
}

// A part is a section of a configuration: the line that begins it and those
// up to the next.
type part struct {
	directive
	lines []directive
	base  *part // the defaults section that it takes over; nil: none
}

func (p part) kind() string { return p.words[0] }

// name returns the name of a section, "" where it has none.
func (p part) name() string {
	if len(p.words) > 1 && p.words[1] != "from" {
		return p.words[1]
	}
	return ""
}

// isProxy reports whether the section takes over defaults.
func (p part) isProxy() bool {
	return p.kind() == "frontend" || p.kind() == "backend" || p.kind() == "listen"
}

// find returns the directives that begin with the words, its own first, then
// those of its defaults.
func (p part) find(words ...string) []directive {
	var found []directive
	for _, d := range p.lines {
		if len(d.words) >= len(words) && slices.Equal(d.words[:len(words)], words) {
			found = append(found, d)
		}
	}
	if p.base != nil {
		found = append(found, p.base.find(words...)...)
	}
	return found
}

// enabled reports whether an option is set, by the section or its defaults.
func (p part) enabled(option string) bool {
	for _, d := range p.lines {
		if d.has("option", option) {
			return d.words[0] != "no"
		}
	}
	return p.base != nil && p.base.enabled(option)
}

// A confFile is a file that haproxy reads.
type confFile struct {
	path  string
	owner string // uid:gid
	mode  uint32
	text  []byte
}

// parse reads files in the order in which haproxy reads them. Conditional
// blocks are taken as if all of them applied.
func parse(files []confFile) []*part {
	kinds := strings.Fields("global defaults frontend backend listen peers resolvers userlist mailers cache program http-errors ring log-forward fcgi-app crt-store traces log-profile acme")
	var (
		parts    []*part
		current  *part
		defaults *part
	)
	for _, f := range files {
		current = nil
		line := 0
		for text := range bytes.Lines(f.text) {
			line++
			d := directive{file: f.path, line: line, words: words(string(text))}
			switch {
			case len(d.words) == 0:
			case slices.Contains(kinds, d.words[0]):
				current = &part{directive: d}
				parts = append(parts, current)
				inherit(current, parts, defaults)
				if current.kind() == "defaults" {
					defaults = current
				}
			case current != nil:
				current.lines = append(current.lines, d)
			}
		}
	}
	return parts
}

// inherit finds the defaults that a section takes over: those that it names,
// else the last ones before it.
func inherit(p *part, before []*part, last *part) {
	if from := p.after("from"); from != "" {
		for _, d := range before {
			if d.kind() == "defaults" && d.name() == from && d != p {
				p.base = d
			}
		}
		return
	}
	if p.isProxy() {
		p.base = last
	}
}

// words splits a line as haproxy does: quotes of both kinds, backslashes, and
// a comment at the end.
func words(line string) []string {
	var (
		found  []string
		word   strings.Builder
		inside bool // a word has begun
		quote  byte
	)
	flush := func() {
		if inside {
			found = append(found, word.String())
		}
		word.Reset()
		inside = false
	}
	line = strings.TrimRight(line, "\r\n")
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote == '\'':
			word.WriteByte(c)
		case c == '\\' && i+1 < len(line):
			i++
			inside = true
			word.WriteByte(line[i])
		case quote == '"':
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inside = c, true
		case c == ' ' || c == '\t' || c == '\r':
			flush()
		case c == '#':
			flush()
			return found
		default:
			inside = true
			word.WriteByte(c)
		}
	}
	flush()
	return found
}

// marks returns the beginnings of the first and the last line of an app's
// block.
func marks(app string) (begin, end string) {
	return "# " + section(app) + " begin", "# " + section(app) + " end"
}

// span finds an app's block in the text of a file, with the end of its last
// line. ok is false when there is none, or only half of one.
func span(text []byte, app string) (from, to int, ok bool) {
	begin, end := marks(app)
	from, at := -1, 0
	for line := range bytes.Lines(text) {
		switch {
		case from < 0 && bytes.HasPrefix(line, []byte(begin)):
			from = at
		case from >= 0 && bytes.HasPrefix(line, []byte(end)):
			return from, at + len(line), true
		}
		at += len(line)
	}
	return 0, 0, false
}

// replace returns the text of a file with the app's block in it: where it was,
// or at the end when there was none or last asks for it. Every other byte is
// as it was.
func replace(text []byte, app string, block []byte, last bool) []byte {
	from, to, ok := span(text, app)
	if ok && !last {
		return slices.Concat(text[:from], block, text[to:])
	}
	if ok {
		text = slices.Concat(text[:from], text[to:])
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(slices.Clip(text), '\n')
	}
	return slices.Concat(text, block)
}

// heirs returns the sections behind the app's block that would take over its
// defaults: they stand before the next defaults section.
func heirs(parts []*part, l proxy.Layout) []*part {
	var found []*part
	for _, p := range parts {
		if p.isProxy() && p.base != nil && p.base.name() == section(l.App) && !own(p, l) {
			found = append(found, p)
		}
	}
	return found
}

// own reports whether teal has written the section for the app.
func own(p *part, l proxy.Layout) bool {
	name := p.name()
	return name == section(l.App) || strings.HasPrefix(name, section(l.App)+":") ||
		name == l.Upstream && p.base != nil && p.base.name() == section(l.App)
}

// ownName is the name of the app's file in a folder of configuration files.
func ownName(app string) string { return "teal-" + app + ".cfg" }
