package tomlfile

import (
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// A span is a part of the source, in bytes, end excluded.
type span struct{ start, end int }

// A place is where a key and its value stand.
type place struct {
	key      span
	value    span // empty for a table with a header, or with dotted keys alone
	implicit bool // the key is only part of a longer one
}

// A repeat is a key that is defined once more.
type repeat struct {
	path string
	at   span // the key
	all  span // the whole definition
}

// A scanner notes where the keys and values of a TOML file stand. It runs
// over text that the TOML library accepts, or refuses only because a key is
// defined twice; on any other text it ends without a useful result.
type scanner struct {
	src      string
	pos      int
	places   map[string]place
	order    []string       // the keys of places in the order of the file
	elements map[string]int // how many elements an array of tables has so far
	repeats  []repeat
	muted    bool // inside a table that is itself a repeat
}

func scan(src string) *scanner {
	s := &scanner{src: src, places: map[string]place{}, elements: map[string]int{}}
	table := ""
	for s.blank(); s.pos < len(src); s.blank() {
		start := s.pos
		if src[s.pos] == '[' {
			table = s.header()
		} else {
			s.pair(table)
		}
		if s.pos == start {
			s.pos++
		}
	}
	s.endTable(len(src))
	return s
}

// endTable ends the definition of the table before offset at, when that table
// was a repeat.
func (s *scanner) endTable(at int) {
	if s.muted {
		s.repeats[len(s.repeats)-1].all.end = at
		s.muted = false
	}
}

// header reads [a.b] or [[a.b]] and returns the path of the keys below it.
func (s *scanner) header() string {
	start := s.pos
	s.endTable(start)
	array := strings.HasPrefix(s.src[s.pos:], "[[")
	s.take("[")
	s.take("[")
	path := ""
	segments := s.key()
	s.take("]")
	s.take("]")
	for i, seg := range segments {
		path = Join(path, seg.name)
		p := place{key: seg.at}
		switch {
		case i < len(segments)-1:
			s.mark(path, place{key: seg.at, implicit: true}, span{})
		case array:
			n := s.elements[path]
			s.elements[path]++
			if n == 0 {
				s.mark(path, p, span{start, s.pos})
			}
			path = Index(path, n)
			s.mark(path, p, span{start, s.pos})
			return path
		default:
			before := len(s.repeats)
			s.mark(path, p, span{start, s.pos})
			s.muted = len(s.repeats) > before
		}
		if n := s.elements[path]; n > 0 {
			path = Index(path, n-1)
		}
	}
	return path
}

// pair reads key = value below table.
func (s *scanner) pair(table string) {
	start := s.pos
	segments := s.key()
	s.space()
	s.take("=")
	s.space()
	path := table
	for i, seg := range segments {
		path = Join(path, seg.name)
		if i < len(segments)-1 {
			s.mark(path, place{key: seg.at, implicit: true}, span{})
			continue
		}
		from := s.pos
		p := place{key: seg.at}
		index := len(s.order)
		first := s.mark(path, p, span{start, start})
		s.value(path)
		p.value = span{from, s.pos}
		if first {
			s.places[s.order[index]] = p
		} else if !s.muted {
			s.repeats[len(s.repeats)-1].all.end = s.pos
		}
	}
}

// mark notes a place, unless the path has one already, and reports whether it
// did. An explicit place replaces an implicit one.
func (s *scanner) mark(path string, p place, all span) bool {
	old, ok := s.places[path]
	switch {
	case !ok || old.implicit && !p.implicit:
		s.places[path] = p
		s.order = append(s.order, path)
		return true
	case !p.implicit && !s.muted:
		s.repeats = append(s.repeats, repeat{path: path, at: p.key, all: all})
	}
	return false
}

// A segment is one part of a dotted key.
type segment struct {
	name string
	at   span
}

func (s *scanner) key() []segment {
	var out []segment
	for {
		s.space()
		start := s.pos
		name := ""
		if c := s.peek(); c == '"' || c == '\'' {
			s.text()
			name = unquote(s.src[start:s.pos])
		} else {
			for s.pos < len(s.src) && isBare(s.src[s.pos]) {
				s.pos++
			}
			name = s.src[start:s.pos]
		}
		out = append(out, segment{name, span{start, s.pos}})
		s.space()
		if s.peek() != '.' {
			return out
		}
		s.pos++
	}
}

func (s *scanner) value(path string) {
	switch s.peek() {
	case '"', '\'':
		s.text()
	case '[':
		s.array(path)
	case '{':
		s.inline(path)
	default:
		start := s.pos
		for s.pos < len(s.src) && !strings.ContainsRune(",]}#\r\n", rune(s.src[s.pos])) {
			s.pos++
		}
		s.pos = start + len(strings.TrimRight(s.src[start:s.pos], " \t"))
	}
}

func (s *scanner) array(path string) {
	s.take("[")
	for i := 0; ; i++ {
		s.blank()
		if s.peek() == ']' || s.pos >= len(s.src) {
			break
		}
		start := s.pos
		element := Index(path, i)
		s.mark(element, place{key: span{start, start}, value: span{start, start}}, span{start, start})
		s.value(element)
		at := span{start, s.pos}
		s.places[element] = place{key: at, value: at}
		s.blank()
		s.take(",")
		if s.pos == start {
			break
		}
	}
	s.take("]")
}

func (s *scanner) inline(path string) {
	s.take("{")
	for {
		s.blank()
		if s.peek() == '}' || s.pos >= len(s.src) {
			break
		}
		start := s.pos
		s.pair(path)
		s.blank()
		s.take(",")
		if s.pos == start {
			break
		}
	}
	s.take("}")
}

// text passes a string of any of the four kinds.
func (s *scanner) text() {
	quote := s.src[s.pos : s.pos+1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.src[s.pos:], long) {
		s.pos += 3
		s.until(long, quote == `"`)
		s.take(quote) // up to two quotes belong to the text
		s.take(quote)
		return
	}
	s.pos++
	s.until(quote, quote == `"`)
}

// until goes behind the next end, past escapes when the text has them.
func (s *scanner) until(end string, escapes bool) {
	for s.pos < len(s.src) {
		switch {
		case strings.HasPrefix(s.src[s.pos:], end):
			s.pos += len(end)
			return
		case escapes && s.src[s.pos] == '\\':
			s.pos = min(s.pos+2, len(s.src))
		default:
			s.pos++
		}
	}
}

// blank passes space, line ends and comments.
func (s *scanner) blank() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			for s.pos < len(s.src) && s.src[s.pos] != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

func (s *scanner) space() {
	for s.pos < len(s.src) && (s.src[s.pos] == ' ' || s.src[s.pos] == '\t') {
		s.pos++
	}
}

func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *scanner) take(token string) {
	if strings.HasPrefix(s.src[s.pos:], token) {
		s.pos += len(token)
	}
}

func isBare(c byte) bool {
	return c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// unquote returns what a quoted key says. The library knows the escapes.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// Join returns the dotted key of name below the table key, with name quoted
// where TOML wants it. The top of the file is "".
func Join(key, name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || !isBare(byte(r)) }) {
		name = quote(name)
	}
	if key == "" {
		return name
	}
	return key + "." + name
}

// Index returns the dotted key of the i-th element, from 0, of the list key.
func Index(key string, i int) string {
	return key + "[" + strconv.Itoa(i) + "]"
}
