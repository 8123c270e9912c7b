package record

import (
	"fmt"
	"strings"
)

// quote returns s as one word of a POSIX shell, whatever s contains. No
// argument can hold a NUL; it is refused.
func quote(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("the argument %q contains a NUL", s)
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", nil
}

// quoteAll returns args as the words of a shell command.
func quoteAll(args []string) (string, error) {
	words := make([]string, len(args))
	for i, a := range args {
		w, err := quote(a)
		if err != nil {
			return "", err
		}
		words[i] = w
	}
	return strings.Join(words, " "), nil
}
