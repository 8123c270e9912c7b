package display

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

const (
	gap        = "  " // between columns
	leastWidth = 6    // of a column that is shortened
)

// Table writes rows below a header in aligned columns. On a terminal the
// widest columns are shortened until a line fits. Cells are made safe to
// print; a row may have fewer cells than the header.
func Table(w io.Writer, header []string, rows [][]string) error {
	return table{header: header, rows: rows, width: terminalWidth(w)}.write(w)
}

type table struct {
	header []string
	rows   [][]string
	width  int // 0: no limit

	palette palette
	colour  func(row, column int) paint // nil: none
}

func (t table) write(w io.Writer) error {
	widths := t.widths()
	var b strings.Builder
	line := func(row int, cells []string) {
		var out strings.Builder
		for i, width := range widths {
			cell := ""
			if i < len(cells) {
				cell = clean(cells[i])
			}
			cell = fit(cell, width)
			if i == len(widths)-1 {
				cell = strings.TrimRight(cell, " ")
			}
			switch {
			case row < 0:
				cell = t.palette.paint(faint, cell)
			case t.colour != nil:
				cell = t.palette.paint(t.colour(row, i), cell)
			}
			if i > 0 {
				out.WriteString(gap)
			}
			out.WriteString(cell)
		}
		b.WriteString(strings.TrimRight(out.String(), " ") + "\n")
	}
	line(-1, t.header)
	for i, cells := range t.rows {
		line(i, cells)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	return nil
}

// widths are those of the columns, the widest shortened while a line is wider
// than the terminal.
func (t table) widths() []int {
	widths := make([]int, len(t.header))
	for _, cells := range append([][]string{t.header}, t.rows...) {
		for i := range min(len(cells), len(widths)) {
			widths[i] = max(widths[i], ansi.StringWidth(clean(cells[i])))
		}
	}
	if t.width <= 0 || len(widths) == 0 {
		return widths
	}
	excess := len(gap)*(len(widths)-1) - t.width
	for _, width := range widths {
		excess += width
	}
	for ; excess > 0; excess-- {
		widest := slices.Index(widths, slices.Max(widths))
		if widths[widest] <= leastWidth {
			break
		}
		widths[widest]--
	}
	return widths
}
