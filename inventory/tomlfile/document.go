package tomlfile

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A Document is a file whose syntax is right, with the places of its keys. It
// is not changed by its methods and may be used by several goroutines.
type Document struct {
	file   string
	src    string
	lines  []int // offset of the start of every line
	tree   map[string]any
	places map[string]place
	order  map[string]int    // position of a key among all keys of the file
	moved  map[string]string // keys that an overlay put there, and where they stand in the file
	masked []span            // secrets, never shown
	label  func(key string) string
}

// Parse reads the syntax of src; file is its name in problems. The values of
// the keys that match a pattern of secret are masked in snippets where they
// are plain strings, and so are URLs with a password; in a pattern * is one
// name, as in container.secrets.*.
//
// The document is nil when the file cannot be understood any further; it may
// be not nil although there are problems, so that more can be found.
func Parse(file string, src []byte, secret ...string) (*Document, Problems) {
	text := strings.TrimPrefix(string(src), "\ufeff")
	d := &Document{file: file, src: text, lines: lineStarts(text)}
	if i := strings.IndexFunc(text, func(r rune) bool { return r == utf8.RuneError }); i >= 0 && !utf8.ValidString(text) {
		return nil, Problems{d.at(span{i, i + 1}, "", "is not UTF-8 text", "save the file as UTF-8")}
	}
	tree, err := unmarshal(text)
	var problems Problems
	if err != nil {
		problems, text = d.repeats(err)
		if tree, err = unmarshal(text); err != nil {
			return nil, problems
		}
	}
	s := scan(text)
	d.tree, d.places = tree, s.places
	d.order = make(map[string]int, len(s.order))
	for i, key := range s.order {
		d.order[key] = i
	}
	d.mask(secret)
	return d, problems
}

// Values makes a document of a tree that stands in no file, as from
// command-line flags; label names a key for people, such as "--image". Lists
// in the tree are []any and tables map[string]any.
func Values(tree map[string]any, label func(key string) string) *Document {
	return &Document{tree: tree, label: label}
}

// unmarshal reads src. A failure inside the library must not end the program.
func unmarshal(src string) (tree map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	_, err = toml.Decode(src, &tree)
	return tree, err
}

// repeats reports err. When it is about keys that are defined twice it
// reports all of these, and returns the source without the second ones.
func (d *Document) repeats(err error) (Problems, string) {
	if s := scan(d.src); len(s.repeats) > 0 && strings.Contains(err.Error(), "already") {
		var problems Problems
		text := []byte(d.src)
		for _, r := range s.repeats {
			p := d.at(r.at, r.path, "is defined twice", "")
			first, _ := d.position(s.places[r.path].key.start)
			p.Hint = fmt.Sprintf("it stands on line %d already; keep one of the two", first)
			problems = append(problems, p)
			for i := r.all.start; i < r.all.end; i++ {
				if text[i] != '\n' {
					text[i] = ' '
				}
			}
		}
		return problems, string(text)
	}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return Problems{{File: d.file, Message: clean(strings.TrimPrefix(err.Error(), "toml: "))}}, d.src
	}
	// The library's offset is right where its line and column are not: they
	// stray by one at the ends of lines.
	start := min(max(pe.Position.Start, 0), len(d.src))
	if start == 0 && pe.Position.Line > 1 {
		start = d.lines[min(pe.Position.Line, len(d.lines))-1]
	}
	return Problems{d.at(span{start, start + pe.Position.Len}, "", pe.Message, "")}, d.src
}

func lineStarts(src string) []int {
	starts := []int{0}
	for i := range len(src) {
		if src[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// position returns the line and the column of an offset, both from 1.
func (d *Document) position(offset int) (line, column int) {
	line = sort.Search(len(d.lines), func(i int) bool { return d.lines[i] > offset })
	return line, utf8.RuneCountInString(d.src[d.lines[line-1]:min(offset, len(d.src))]) + 1
}

// loginExpr finds a URL with a password.
var loginExpr = regexp.MustCompile(`://[^/\s:@]*:[^/\s@]+@`)

// mask notes the values of secret keys, and those that hold a password.
func (d *Document) mask(patterns []string) {
	for key, p := range d.places {
		if p.value.end <= p.value.start || !strings.ContainsRune(`"'`, rune(d.src[p.value.start])) {
			continue
		}
		secret := func(pattern string) bool {
			return matchEnd(pattern, key) || strings.HasSuffix(key, "]") && matchEnd(pattern, Parent(key))
		}
		if slices.ContainsFunc(patterns, secret) || loginExpr.MatchString(d.src[p.value.start:p.value.end]) {
			d.masked = append(d.masked, p.value)
		}
	}
}

// at makes a problem at a part of the source.
func (d *Document) at(where span, key, message, hint string) Problem {
	p := Problem{File: d.file, Key: clean(key), Message: clean(message), Hint: clean(hint)}
	p.Line, p.Column = d.position(where.start)
	from := d.lines[p.Line-1]
	to := len(d.src)
	if p.Line < len(d.lines) {
		to = d.lines[p.Line] - 1
	}
	width := utf8.RuneCountInString(d.src[where.start:max(where.start, min(where.end, to))])
	p.Snippet = snippet(d.masking(from, to), p.Line, p.Column, width)
	return p
}

// masking returns a part of the source with a star for every character of a
// secret, so that columns stay what they are.
func (d *Document) masking(from, to int) string {
	var b strings.Builder
	for i, r := range d.src[from:to] {
		for _, m := range d.masked {
			if m.start <= from+i && from+i < m.end {
				r = '*'
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Problem reports that the value of a dotted key is wrong. Indexes of lists
// count from 0: test.checks[1].status. For a key that is not in the file the
// table above it is shown.
func (d *Document) Problem(key, message, hint string) Problem {
	return d.problem(key, message, hint, func(p place) span {
		if p.value.end > p.value.start {
			return p.value
		}
		return p.key
	})
}

// KeyProblem is Problem for a key that is wrong itself.
func (d *Document) KeyProblem(key, message, hint string) Problem {
	return d.problem(key, message, hint, func(p place) span { return p.key })
}

func (d *Document) problem(key, message, hint string, part func(place) span) Problem {
	if d.label != nil {
		return Problem{Key: d.label(key), Message: clean(message), Hint: clean(hint)}
	}
	stands := d.origin(key)
	for at := stands; at != ""; at = Parent(at) {
		if p, ok := d.places[at]; ok {
			if at != stands {
				part = func(p place) span { return p.key }
			}
			return d.at(part(p), stands, message, hint)
		}
	}
	return Problem{File: d.file, Key: clean(stands), Message: clean(message), Hint: clean(hint)}
}

// Has reports whether a dotted key has a value, or is a table.
func (d *Document) Has(key string) bool {
	_, ok := d.lookup(key)
	return ok
}

// Keys returns the names below the table key in the order of the file, or
// sorted when there is no file. The top of the file is "".
func (d *Document) Keys(key string) []string {
	v, _ := d.lookup(key)
	table, _ := v.(map[string]any)
	return d.sortNames(key, table)
}

func (d *Document) sortNames(key string, table map[string]any) []string {
	names := slices.Sorted(maps.Keys(table))
	slices.SortStableFunc(names, func(a, b string) int {
		return d.order[d.origin(Join(key, a))] - d.order[d.origin(Join(key, b))]
	})
	return names
}

// IsTable reports whether a dotted key is a table.
func (d *Document) IsTable(key string) bool {
	v, _ := d.lookup(key)
	_, ok := v.(map[string]any)
	return ok
}

// Name returns how people find a key: the dotted key itself, below its
// environment when an overlay put it there, or the flag.
func (d *Document) Name(key string) string {
	if d.label != nil {
		return d.label(key)
	}
	return clean(d.origin(key))
}

// Source returns the text of a value as it is written, or "".
func (d *Document) Source(key string) string {
	p := d.places[d.origin(key)]
	return d.src[p.value.start:p.value.end]
}

// Walk calls f for every string of the document that is a value, with its
// dotted key, in a stable order.
func (d *Document) Walk(f func(key, text string)) {
	d.walk("", d.tree, f)
}

func (d *Document) walk(key string, value any, f func(key, text string)) {
	switch v := value.(type) {
	case string:
		f(key, v)
	case map[string]any:
		for _, name := range d.sortNames(key, v) {
			d.walk(Join(key, name), v[name], f)
		}
	default:
		list, _ := elements(value)
		for i, e := range list {
			d.walk(Index(key, i), e, f)
		}
	}
}

// lookup finds a value by its dotted key.
func (d *Document) lookup(key string) (any, bool) {
	var value any = d.tree
	for _, step := range split(key) {
		if step.index {
			list, _ := elements(value)
			if step.at >= len(list) {
				return nil, false
			}
			value = list[step.at]
			continue
		}
		table, _ := value.(map[string]any)
		next, ok := table[step.name]
		if !ok {
			return nil, false
		}
		value = next
	}
	return value, true
}
