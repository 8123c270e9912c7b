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

// Format returns a value as TOML on one line: text, numbers, booleans and
// times, lists of these and maps of these. Keys of maps are sorted. What does
// not print is escaped.
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
	case map[string]any:
		return formatTable(v)
	case map[string]string:
		return formatTable(v)
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

func formatTable[T any](table map[string]T) string {
	if len(table) == 0 {
		return "{}"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(table)) {
		parts = append(parts, Join("", name)+" = "+Format(table[name]))
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
