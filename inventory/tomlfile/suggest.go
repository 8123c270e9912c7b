package tomlfile

import "fmt"

// DidYouMean returns `did you mean "x"?` with the word of candidates that is
// nearest to word, or "" when none is near. Of equally near words the first
// wins.
func DidYouMean(word string, candidates []string) string {
	const maxLength = 64 // longer words are not typed by hand
	if len(word) == 0 || len(word) > maxLength {
		return ""
	}
	best, limit := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if c == word || len(c) > maxLength {
			continue
		}
		if d := distance(word, c); d < limit {
			best, limit = c, d
		}
	}
	if best == "" {
		return ""
	}
	return clean(fmt.Sprintf("did you mean %q?", best))
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row := make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}
