package tomlfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A Pair is a key of a table and its value.
type Pair struct {
	Name  string
	Value any
}

// Format returns a value as TOML on one line: text, numbers, booleans and
// times, lists of these and tables of these. A []Pair is a table in its own
// order; a map is sorted. What does not print is escaped.
func Format(value any) string {
	switch v := value.(type) {
	case string:
		return quote(v)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".enI") {
			text += ".0"
		}
		return text
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case []any:
		return formatList(v)
	case []string:
		return formatList(v)
	case []int:
		return formatList(v)
	case []Pair:
		return formatTable(v)
	case map[string]any:
		return formatTable(sortedPairs(v))
	case map[string]string:
		return formatTable(sortedPairs(v))
	}
	return fmt.Sprint(value) // whole numbers and booleans
}

func formatList[T any](list []T) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = Format(v)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func sortedPairs[T any](table map[string]T) []Pair {
	var pairs []Pair
	for _, name := range slices.Sorted(maps.Keys(table)) {
		pairs = append(pairs, Pair{name, table[name]})
	}
	return pairs
}

func formatTable(pairs []Pair) string {
	if len(pairs) == 0 {
		return "{}"
	}
	parts := make([]string, len(pairs))
	for i, p := range pairs {
		parts[i] = Join("", p.Name) + " = " + Format(p.Value)
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// quote returns a TOML string. Go reads it as well.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
