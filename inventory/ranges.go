package inventory

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// maxHosts limits what one inventory may hold, so that a range with a slip in
// it ends in a message and not in exhausted memory.
const maxHosts = 100_000

const rangeHint = "a range is [01:20], [a:f] or, with a step, [0:100:10]"

// expandRanges returns the names that a name with ranges such as
// web[01:20].example.com stands for, the last range changing fastest.
// Zeros in front are kept. A name without a range stands for itself.
func expandRanges(name string) ([]string, error) {
	names := []string{""}
	for rest := name; rest != ""; {
		head, tail, found := strings.Cut(rest, "[")
		values := []string{""}
		if found {
			inner, after, closed := strings.Cut(tail, "]")
			if !closed {
				return nil, &tomlfile.Fault{Message: fmt.Sprintf("%q has a [ without a ]", name), Hint: rangeHint}
			}
			var err error
			if values, err = rangeValues(inner); err != nil {
				return nil, err
			}
			tail = after
		}
		if len(names)*len(values) > maxHosts {
			return nil, &tomlfile.Fault{Message: fmt.Sprintf("%q stands for more than %d hosts", name, maxHosts)}
		}
		out := make([]string, 0, len(names)*len(values))
		for _, prefix := range names {
			for _, v := range values {
				out = append(out, prefix+head+v)
			}
		}
		names, rest = out, tail
	}
	return names, nil
}

// rangeValues returns what stands between the brackets of a range, expanded.
func rangeValues(inner string) ([]string, error) {
	fault := func(why string) error {
		return &tomlfile.Fault{Message: fmt.Sprintf("[%s] is not a range: %s", inner, why), Hint: rangeHint}
	}
	parts := strings.Split(inner, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, fault("it must be first:last or first:last:step")
	}
	step := 1
	if len(parts) == 3 {
		var ok bool
		if step, ok = number(parts[2]); !ok || step == 0 {
			return nil, fault("the step must be a number above 0")
		}
	}
	first, last := parts[0], parts[1]
	if first == "" {
		first = "0"
	}
	if isLetter(first) && isLetter(last) {
		if first[0] > last[0] || first[0] <= 'Z' && last[0] >= 'a' {
			return nil, fault("the letters must be in order and of one case")
		}
		var out []string
		for c := int(first[0]); c <= int(last[0]); c += step {
			out = append(out, string(rune(c)))
		}
		return out, nil
	}
	from, okFrom := number(first)
	to, okTo := number(last)
	width := 0
	switch {
	case !okFrom || !okTo:
		return nil, fault("both ends must be numbers or single letters")
	case from > to:
		return nil, fault("the first is above the last")
	case (to-from)/step >= maxHosts:
		return nil, fault(fmt.Sprintf("it stands for more than %d hosts", maxHosts))
	case len(first) > 1 && first[0] == '0':
		if width = len(first); len(last) != width {
			return nil, fault("with zeros in front both ends must be equally long")
		}
	}
	out := make([]string, 0, (to-from)/step+1)
	for n := from; n <= to; n += step {
		out = append(out, fmt.Sprintf("%0*d", width, n))
	}
	return out, nil
}

// number reads digits alone, at most nine of them.
func number(s string) (int, bool) {
	if len(s) > 9 || s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func isLetter(s string) bool {
	return len(s) == 1 && ('a' <= s[0] && s[0] <= 'z' || 'A' <= s[0] && s[0] <= 'Z')
}
