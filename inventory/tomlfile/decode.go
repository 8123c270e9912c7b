package tomlfile

import (
	"cmp"
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rules say how values are turned into Go values beyond what their types say.
// The zero value has none.
type Rules struct {
	// Convert makes the values of some keys. Instead of a name in a map the
	// key has *, instead of an index []: plugins.*.path, test.checks[].tcp.
	// The function gets what the file says: string, int64, float64, bool,
	// time.Time, []any or map[string]any.
	Convert map[string]func(value any) (any, error)

	// Expand, when not nil, replaces references inside a string. When the
	// result is not known yet it returns false: then a string stays as it is
	// written and a value of any other type is left alone. Where something
	// was replaced, the text may also stand for a number or a boolean.
	Expand func(key, text string) (result string, known bool, err error)

	// Refuse rejects keys, written as in Convert, with a hint.
	Refuse map[string]string

	// Hints are shown for keys, written as in Convert, whose values have a
	// wrong type, instead of a general advice.
	Hints map[string]string
}

// Decode reads file into v, a pointer to a struct. It is Parse and
// Document.Decode in one; the document is nil when the syntax is wrong.
func Decode(file string, src []byte, v any, rules Rules) (*Document, Problems) {
	d, problems := Parse(file, src)
	if d == nil {
		return nil, problems
	}
	return d, append(problems, d.Decode(v, rules)...)
}

// Decode fills v, a pointer to a struct, and reports every key that has no
// field and every value that does not fit. A field is named by its toml tag,
// else by its json tag; one without either is none. What the document does
// not say stays as it is in v.
func (d *Document) Decode(v any, rules Rules) Problems {
	target := reflect.ValueOf(v).Elem()
	dec := &decoder{doc: d, rules: rules, root: target.Type()}
	dec.table(spot{}, d.tree, target)
	return dec.problems
}

// A spot is a key, and the same key as Rules write it.
type spot struct{ key, rule string }

func (s spot) field(name string) spot { return spot{Join(s.key, name), Join(s.rule, name)} }
func (s spot) entry(name string) spot { return spot{Join(s.key, name), s.rule + ".*"} }
func (s spot) element(i int) spot     { return spot{Index(s.key, i), s.rule + "[]"} }

type decoder struct {
	doc      *Document
	rules    Rules
	root     reflect.Type
	problems Problems
}

func (dec *decoder) fail(key, message, hint string) {
	dec.problems = append(dec.problems, dec.doc.Problem(key, message, hint))
}

func (dec *decoder) failErr(key string, err error) {
	dec.fail(key, err.Error(), Hint(err))
}

// value puts a value of the file into target.
func (dec *decoder) value(at spot, value any, target reflect.Value) {
	replaced := false
	if text, ok := value.(string); ok && dec.rules.Expand != nil {
		result, known, err := dec.rules.Expand(at.key, text)
		switch {
		case err != nil:
			dec.failErr(at.key, err)
			return
		case !known && (dec.rules.Convert[at.rule] != nil || target.Kind() != reflect.String && isScalar(target.Type())):
			return
		}
		replaced = result != text
		value = result
	}
	if convert := dec.rules.Convert[at.rule]; convert != nil {
		dec.convert(at, value, target, convert)
		return
	}
	if replaced {
		value = reread(value.(string), target)
	}
	dec.typed(at, value, target)
}

func (dec *decoder) convert(at spot, value any, target reflect.Value, convert func(any) (any, error)) {
	if list, ok := elements(value); ok {
		value = list
	}
	out, err := convert(value)
	if err != nil {
		dec.failErr(at.key, err)
		return
	}
	target.Set(reflect.ValueOf(out))
}

// isScalar reports whether a text that is not known yet may turn out to be a
// value of type t.
func isScalar(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Map
}

// reread makes a number or a boolean of a text that was expanded, where the
// target wants one. What is neither stays a text and fails as such.
func reread(text string, target reflect.Value) any {
	t := target.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[time.Duration]() {
		return text
	}
	switch t.Kind() {
	case reflect.Bool:
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case reflect.Float32, reflect.Float64:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	default:
	}
	return text
}

// typed puts a value into target by the type of target.
func (dec *decoder) typed(at spot, value any, target reflect.Value) {
	if target.Kind() == reflect.Pointer {
		if target.IsNil() {
			target.Set(reflect.New(target.Type().Elem()))
		}
		dec.typed(at, value, target.Elem())
		return
	}
	if target.Type() == reflect.TypeFor[time.Duration]() {
		dec.duration(at, value, target)
		return
	}
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](target.Addr()); ok {
		text, ok := value.(string)
		if !ok {
			dec.mismatch(at, value, target)
		} else if err := u.UnmarshalText([]byte(text)); err != nil {
			dec.failErr(at.key, err)
		}
		return
	}
	switch v := value.(type) {
	case map[string]any:
		switch target.Kind() {
		case reflect.Struct:
			dec.table(at, v, target)
			return
		case reflect.Map:
			dec.mapping(at, v, target)
			return
		default:
		}
	case []any, []map[string]any:
		if target.Kind() == reflect.Slice {
			dec.list(at, v, target)
			return
		}
	}
	if target.Kind() == reflect.Interface && target.NumMethod() == 0 {
		target.Set(reflect.ValueOf(dec.free(at, value)))
		return
	}
	dec.scalar(at, value, target)
}

// free returns a value of no known type, with its strings expanded.
func (dec *decoder) free(at spot, value any) any {
	switch v := value.(type) {
	case string:
		return v
	case float64:
		dec.finite(at, v)
		return v
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			var slot any
			dec.value(at.entry(name), e, reflect.ValueOf(&slot).Elem())
			out[name] = slot
		}
		return out
	}
	list, ok := elements(value)
	if !ok {
		return value
	}
	out := make([]any, len(list))
	for i, e := range list {
		dec.value(at.element(i), e, reflect.ValueOf(&out[i]).Elem())
	}
	return out
}

func (dec *decoder) table(at spot, table map[string]any, target reflect.Value) {
	fields := fieldsOf(target.Type())
	for _, name := range dec.doc.sortNames(at.key, table) {
		below := at.field(name)
		if hint, refused := dec.rules.Refuse[below.rule]; refused {
			p := dec.doc.KeyProblem(below.key, "does not work yet", hint)
			dec.problems = append(dec.problems, p)
			continue
		}
		index, ok := fields[name]
		if !ok {
			p := dec.doc.KeyProblem(below.key, "unknown key", dec.suggest(name, fields))
			dec.problems = append(dec.problems, p)
			continue
		}
		dec.value(below, table[name], target.Field(index))
	}
}

// suggest names the key that was meant: a near name in the same table, or
// the same name in another one.
func (dec *decoder) suggest(name string, fields map[string]int) string {
	if hint := DidYouMean(name, slices.Sorted(maps.Keys(fields))); hint != "" {
		return hint
	}
	elsewhere := keysNamed(dec.root, "", name)
	depth := func(key string) int { return len(split(key)) }
	slices.SortFunc(elsewhere, func(a, b string) int { return cmp.Or(depth(a)-depth(b), cmp.Compare(a, b)) })
	if len(elsewhere) == 0 || len(elsewhere) > 1 && depth(elsewhere[0]) == depth(elsewhere[1]) {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", elsewhere[0])
}

// keysNamed returns the dotted keys of t, and of its tables, that end in name.
// The place of a name that is free is NAME.
func keysNamed(t reflect.Type, key, name string) []string {
	var out []string
	for field, i := range fieldsOf(t) {
		at := Join(key, field)
		if field == name {
			out = append(out, at)
		}
		below := t.Field(i).Type
		for below.Kind() == reflect.Pointer || below.Kind() == reflect.Map {
			if below.Kind() == reflect.Map {
				at += ".NAME"
			}
			below = below.Elem()
		}
		if below.Kind() == reflect.Struct {
			out = append(out, keysNamed(below, at, name)...)
		}
	}
	return out
}

// fieldsOf returns the fields of a struct by their names in a file.
func fieldsOf(t reflect.Type) map[string]int {
	out := map[string]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("toml")
		if !ok {
			tag = f.Tag.Get("json")
		}
		name, _, _ := strings.Cut(tag, ",")
		if f.IsExported() && name != "" && name != "-" {
			out[name] = i
		}
	}
	return out
}

func (dec *decoder) mapping(at spot, table map[string]any, target reflect.Value) {
	out := reflect.MakeMapWithSize(target.Type(), len(table))
	for _, name := range dec.doc.sortNames(at.key, table) {
		slot := reflect.New(target.Type().Elem()).Elem()
		dec.value(at.entry(name), table[name], slot)
		out.SetMapIndex(reflect.ValueOf(name).Convert(target.Type().Key()), slot)
	}
	target.Set(out)
}

func (dec *decoder) list(at spot, value any, target reflect.Value) {
	list, _ := elements(value)
	out := reflect.MakeSlice(target.Type(), len(list), len(list))
	for i, e := range list {
		dec.value(at.element(i), e, out.Index(i))
	}
	target.Set(out)
}

func (dec *decoder) duration(at spot, value any, target reflect.Value) {
	const hint = `write it like "10s", "1m30s" or "2h"`
	text, ok := value.(string)
	if !ok {
		dec.fail(at.key, "must be a duration in quotes, not "+kindOf(value), hint)
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		dec.fail(at.key, fmt.Sprintf("%q is not a duration", text), hint)
		return
	}
	target.SetInt(int64(d))
}

func (dec *decoder) scalar(at spot, value any, target reflect.Value) {
	switch v := value.(type) {
	case string:
		if target.Kind() == reflect.String {
			target.SetString(v)
			return
		}
	case bool:
		if target.Kind() == reflect.Bool {
			target.SetBool(v)
			return
		}
	case int64:
		if dec.integer(at, v, target) {
			return
		}
	case float64:
		if target.CanFloat() {
			if dec.finite(at, v) {
				target.SetFloat(v)
			}
			return
		}
	}
	dec.mismatch(at, value, target)
}

// finite reports whether f is a number that can be worked with, and complains
// when it is not.
func (dec *decoder) finite(at spot, f float64) bool {
	ok := !math.IsNaN(f) && !math.IsInf(f, 0)
	if !ok {
		dec.fail(at.key, "must be a number that has a size", "")
	}
	return ok
}

// integer puts n into target and reports whether target is a number.
func (dec *decoder) integer(at spot, n int64, target reflect.Value) bool {
	outside := false
	switch {
	case target.CanInt():
		if outside = target.OverflowInt(n); !outside {
			target.SetInt(n)
		}
	case target.CanUint():
		if outside = n < 0 || target.OverflowUint(uint64(n)); !outside {
			target.SetUint(uint64(n))
		}
	case target.CanFloat():
		target.SetFloat(float64(n))
	default:
		return false
	}
	if outside {
		dec.fail(at.key, fmt.Sprintf("%d is out of range", n), rangeHint(target.Type()))
	}
	return true
}

func rangeHint(t reflect.Type) string {
	bits := t.Bits()
	if t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64 {
		return fmt.Sprintf("between 0 and %d", uint64(math.MaxUint64)>>(64-bits))
	}
	return fmt.Sprintf("between %d and %d", int64(math.MinInt64)>>(64-bits), int64(math.MaxInt64)>>(64-bits))
}

func (dec *decoder) mismatch(at spot, value any, target reflect.Value) {
	wanted, hint := "a table", `write { key = "value" }`
	switch {
	case target.Kind() == reflect.Bool:
		wanted, hint = "true or false", ""
		if s, ok := value.(string); ok && (s == "true" || s == "false") {
			hint = "write it without quotes"
		}
	case target.Kind() == reflect.Slice:
		wanted, hint = "a list", `write ["…", "…"]`
		if t := target.Type().Elem(); t.Kind() == reflect.Struct {
			hint = "write [{ … }, { … }]"
		} else if t.Kind() != reflect.String {
			hint = "write […, …]"
		}
	case target.CanInt() || target.CanUint():
		wanted, hint = "a whole number", ""
		if _, ok := value.(string); ok {
			hint = "write it without quotes"
		}
	case target.CanFloat():
		wanted, hint = "a number", ""
		if _, ok := value.(string); ok {
			hint = "write it without quotes"
		}
	case target.Kind() == reflect.String:
		wanted, hint = "text in quotes", ""
		switch value.(type) {
		case int64, float64, bool, time.Time:
			hint = "write it in quotes"
		}
	}
	if own, ok := dec.rules.Hints[at.rule]; ok {
		hint = own
	}
	dec.fail(at.key, fmt.Sprintf("must be %s, not %s", wanted, kindOf(value)), hint)
}

// kindOf says what a value of a file is.
func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "text"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a point"
	case bool:
		return "true or false"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "a list"
}
