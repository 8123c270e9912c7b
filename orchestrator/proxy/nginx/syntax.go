package nginx

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// A directive is a statement of an nginx configuration.
type directive struct {
	name  string
	args  []string
	block []directive // nil for a simple one; an include has what it includes
	file  string      // where it stands
	line  int
}

// parse reads the text of one configuration file.
func parse(file, text string) ([]directive, error) {
	s := scanner{file: file, rest: text, line: 1}
	ds, err := s.block(false)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", file, s.line, err)
	}
	return ds, nil
}

// A scanner cuts a text into tokens.
type scanner struct {
	file string
	rest string
	line int
}

// block reads directives up to the brace that closes it, or the end.
func (s *scanner) block(inner bool) ([]directive, error) {
	ds := []directive{}
	var words []string
	for {
		word, quoted, ok := s.token()
		switch {
		case !ok && (inner || len(words) > 0):
			return nil, fmt.Errorf("unexpected end of the file")
		case !ok:
			return ds, nil
		case quoted || word != ";" && word != "{" && word != "}":
			words = append(words, word)
			continue
		case word == "}" && inner && len(words) == 0:
			return ds, nil
		case word == "}" || len(words) == 0:
			return nil, fmt.Errorf("unexpected %q", word)
		}
		d := directive{name: words[0], args: words[1:], file: s.file, line: s.line}
		words = nil
		if word == "{" && strings.HasSuffix(d.name, "_by_lua_block") {
			s.skipBlock()
		} else if word == "{" {
			var err error
			if d.block, err = s.block(true); err != nil {
				return nil, err
			}
		}
		ds = append(ds, d)
	}
}

// token returns the next word, or one of ; { }. quoted tells a word in quotes
// from these.
func (s *scanner) token() (word string, quoted, ok bool) {
	s.space()
	if s.rest == "" {
		return "", false, false
	}
	switch c := s.rest[0]; c {
	case ';', '{', '}':
		s.rest = s.rest[1:]
		return string(c), false, true
	case '"', '\'':
		return s.quoted(c), true, true
	}
	end := 0
	for end < len(s.rest) && !strings.ContainsRune(" \t\r\n;{", rune(s.rest[end])) {
		switch {
		case s.rest[end] == '\\' && end+1 < len(s.rest):
			end++
		case strings.HasPrefix(s.rest[end:], "${"): // the brace belongs to the variable
			end++
		}
		end++
	}
	word, s.rest = s.rest[:end], s.rest[end:]
	return word, false, true
}

// space skips white space and comments.
func (s *scanner) space() {
	for s.rest != "" {
		switch s.rest[0] {
		case '\n':
			s.line++
		case ' ', '\t', '\r':
		case '#':
			end := strings.IndexByte(s.rest, '\n')
			if end < 0 {
				end = len(s.rest)
			}
			s.rest = s.rest[end:]
			continue
		default:
			return
		}
		s.rest = s.rest[1:]
	}
}

// quoted reads a word between two quotes c.
func (s *scanner) quoted(c byte) string {
	var b strings.Builder
	i := 1
	for ; i < len(s.rest) && s.rest[i] != c; i++ {
		if s.rest[i] == '\\' && i+1 < len(s.rest) {
			i++
		}
		b.WriteByte(s.rest[i])
	}
	s.line += strings.Count(s.rest[:min(i, len(s.rest))], "\n")
	s.rest = s.rest[min(i+1, len(s.rest)):]
	return b.String()
}

// skipBlock skips a block in another language up to its closing brace.
func (s *scanner) skipBlock() {
	depth := 1
	for i, c := range s.rest {
		switch c {
		case '\n':
			s.line++
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 {
			s.rest = s.rest[i+1:]
			return
		}
	}
	s.rest = ""
}

// A tree is a whole configuration: the main file with what it includes.
type tree struct {
	main  string // its path; patterns are relative to its folder
	files map[string]string
	root  []directive
}

// newTree reads the files of a dump, the main one first.
func newTree(files []confFile) (tree, error) {
	if len(files) == 0 {
		return tree{}, fmt.Errorf("nginx -T named no configuration file")
	}
	t := tree{main: files[0].path, files: map[string]string{}}
	for _, f := range files {
		t.files[f.path] = f.text
	}
	var err error
	t.root, err = t.load(t.main, 0)
	return t, err
}

func (t tree) load(file string, depth int) ([]directive, error) {
	ds, err := parse(file, t.files[file])
	if err == nil {
		err = t.include(ds, depth)
	}
	return ds, err
}

// include fills the blocks of include directives.
func (t tree) include(ds []directive, depth int) error {
	if depth > 20 {
		return fmt.Errorf("%s: includes itself", t.main)
	}
	for i, d := range ds {
		if d.name != "include" || len(d.args) != 1 {
			if err := t.include(d.block, depth); err != nil {
				return err
			}
			continue
		}
		for _, file := range t.matching(d.args[0]) {
			more, err := t.load(file, depth+1)
			if err != nil {
				return err
			}
			ds[i].block = append(ds[i].block, more...)
		}
	}
	return nil
}

// abs makes a path of the configuration absolute, as nginx does.
func (t tree) abs(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(path.Dir(t.main), p)
}

// matching returns the files of the dump that an include directive means.
func (t tree) matching(pattern string) []string {
	var found []string
	for file := range t.files {
		if ok, err := path.Match(t.abs(pattern), file); err == nil && ok {
			found = append(found, file)
		}
	}
	slices.Sort(found)
	return found
}

// find returns the directives of a name among ds and in what they include.
func find(ds []directive, name string) []directive {
	var found []directive
	for _, d := range ds {
		if d.name == name {
			found = append(found, d)
		}
		if d.name == "include" {
			found = append(found, find(d.block, name)...)
		}
	}
	return found
}

// http returns what stands in the http block.
func (t tree) http() []directive {
	var ds []directive
	for _, d := range find(t.root, "http") {
		ds = append(ds, d.block...)
	}
	return ds
}

// place returns where a new file of that name is read as part of the http
// block, or where it is already.
func (t tree) place(name string) (file string, ok bool) {
	var free string
	own := false // the place is in a folder of *.conf files, meant for programs that bring their own
	for _, d := range find(t.http(), "include") {
		for _, pattern := range d.args {
			pattern = t.abs(pattern)
			here := path.Join(path.Dir(pattern), name)
			if matches, err := path.Match(pattern, here); err != nil || !matches || strings.ContainsAny(path.Dir(pattern), "*?[") {
				continue
			}
			if _, exists := t.files[here]; exists {
				return here, true
			}
			if bring := path.Base(pattern) == "*.conf"; free == "" || bring && !own {
				free, own = here, bring
			}
		}
	}
	return free, free != ""
}
