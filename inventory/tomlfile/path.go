package tomlfile

import (
	"strconv"
	"strings"
)

// A step is one part of a dotted key: a name or an index.
type step struct {
	name  string
	at    int
	index bool
	end   int // offset behind the step
}

// split takes a dotted key, as Join and Index make it, apart.
func split(key string) []step {
	var out []step
	for i := 0; i < len(key); {
		rest := key[i:]
		switch rest[0] {
		case '.':
			i++
		case '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return out
			}
			n, _ := strconv.Atoi(rest[1:end])
			i += end + 1
			out = append(out, step{at: n, index: true, end: i})
		case '"':
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return out
			}
			name, _ := strconv.Unquote(quoted)
			i += len(quoted)
			out = append(out, step{name: name, end: i})
		default:
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			i += end
			out = append(out, step{name: rest[:end], end: i})
		}
	}
	return out
}

// Parent returns the dotted key of the table or the list that holds key, ""
// for the top of the file.
func Parent(key string) string {
	steps := split(key)
	if len(steps) < 2 {
		return ""
	}
	return key[:steps[len(steps)-2].end]
}

// match reports whether a dotted key matches a pattern, in which * is any one
// name.
func match(pattern, key string) bool {
	return matchSteps(split(pattern), split(key))
}

// matchEnd is match for the last parts of a key, as below an environment.
func matchEnd(pattern, key string) bool {
	p, k := split(pattern), split(key)
	return len(k) >= len(p) && matchSteps(p, k[len(k)-len(p):])
}

func matchSteps(pattern, key []step) bool {
	if len(pattern) != len(key) {
		return false
	}
	for i, p := range pattern {
		if p.index || key[i].index || p.name != "*" && p.name != key[i].name {
			return false
		}
	}
	return true
}

// elements returns the elements of a list: the library makes one type for
// lists of tables and another for all others.
func elements(value any) ([]any, bool) {
	switch v := value.(type) {
	case []any:
		return v, true
	case []map[string]any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = e
		}
		return out, true
	}
	return nil, false
}
