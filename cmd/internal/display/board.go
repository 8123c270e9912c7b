package display

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/teal-deploy/teal/orchestrator"
)

// A mark is what a cell of the board says of a step.
type mark int

const (
	waiting mark = iota
	running
	done
	skipped
	failed
)

// glyphs are the marks as a terminal shows them: with UTF-8 and without.
func glyphs(utf8 bool) [5]string {
	if utf8 {
		return [5]string{"·", "▸", "✓", "–", "✗"}
	}
	return [5]string{".", ">", "+", "-", "x"}
}

// A row is a host on the board.
type row struct {
	name     string
	balances bool // it is a load balancer, which goes through no steps
	cells    [7]mark
	state    mark // of the whole
	text     string
}

// A board is the state of a run, as a matrix of hosts and steps. It knows no
// terminal: events go in, lines of text come out.
type board struct {
	title   string
	started time.Time
	rows    []*row
	byName  map[string]*row
	note    string // the newest text that concerns the whole run

	palette palette
	glyphs  [5]string
}

func newBoard(title string, names Names, started time.Time, p palette, utf8 bool) *board {
	b := &board{title: clean(title), started: started, byName: map[string]*row{}, palette: p, glyphs: glyphs(utf8)}
	for _, name := range names.Hosts {
		b.row(name)
	}
	for _, name := range names.Balancers {
		b.row(name).balances = true
	}
	return b
}

func (b *board) row(name string) *row {
	r := b.byName[name]
	if r == nil {
		r = &row{name: clean(name)}
		b.rows = append(b.rows, r)
		b.byName[name] = r
	}
	return r
}

// apply takes an event in.
func (b *board) apply(e orchestrator.Event) {
	text := reason(e)
	if e.Host == "" {
		b.note = cmp.Or(text, b.note)
		return
	}
	r := b.row(e.Host)
	if r.balances && r.state == waiting {
		r.state = running
	}
	if m, ok := markOf(e.Status); ok {
		if i := slices.Index(orchestrator.Steps(), e.Step); i >= 0 {
			r.cells[i] = m
		}
		r.advance(e.Step, m)
	}
	if e.Status == orchestrator.StatusFailed || r.state != failed {
		label := ""
		if text != "" && e.Step != "" {
			label = string(e.Step) + ": "
		}
		r.text = cmp.Or(label+text, r.text)
		if r.state == done && text == "" {
			r.text = ""
		}
	}
}

func markOf(s orchestrator.Status) (mark, bool) {
	switch s {
	case orchestrator.StatusStarted:
		return running, true
	case orchestrator.StatusDone:
		return done, true
	case orchestrator.StatusSkipped:
		return skipped, true
	case orchestrator.StatusFailed:
		return failed, true
	case orchestrator.StatusOutput, orchestrator.StatusInfo, orchestrator.StatusWarning:
	}
	return waiting, false
}

// advance derives the state of the whole row. What has failed stays so.
func (r *row) advance(step orchestrator.Step, m mark) {
	ends := step == orchestrator.StepTeardown || step == orchestrator.StepConnect && m == skipped
	switch {
	case r.state == failed:
	case m == failed || step == orchestrator.StepUndo:
		r.state = failed
	case ends && (m == done || m == skipped):
		r.state = done
	default:
		r.state = running
	}
}

// reason is the text of an event, with its error, on one line.
func reason(e orchestrator.Event) string {
	text := clean(e.Text)
	if e.Err == nil {
		return text
	}
	if text != "" {
		text += ": "
	}
	return text + clean(cause(e.Host, e.Err))
}

// cause is an error where the host stands already.
func cause(host string, err error) string {
	return strings.TrimPrefix(err.Error(), host+": ")
}

// view draws the board into at most height lines of at most width columns.
// Hosts that do not fit are counted instead: first those that are done.
func (b *board) view(width, height int, now time.Time) []string {
	lines := []string{b.headline(width, now)}
	shown, hidden := b.choose(height - 2)
	layout := b.layout(width)
	if height > 2 {
		lines = append(lines, b.palette.paint(faint, layout.header()))
	}
	for _, r := range shown {
		lines = append(lines, b.line(layout, r))
	}
	if len(hidden) > 0 {
		lines = append(lines, b.palette.paint(faint, fit(fmt.Sprintf("… and %d more: %s", len(hidden), census(hidden, true)), width)))
	}
	return lines
}

func (b *board) headline(width int, now time.Time) string {
	text := fmt.Sprintf("%s  %s  %s", b.title, census(b.rows, false), duration(max(now.Sub(b.started), 0).Truncate(time.Second)))
	if b.note != "" {
		text += "  " + b.note
	}
	return b.palette.paint(bold, ansi.Truncate(text, width, "…"))
}

// census counts hosts by state: "1 failed, 30 running, 12 done, 7 waiting", and
// load balancers, which are in none of these states, when all is to be counted.
func census(rows []*row, all bool) string {
	var counts [5]int
	balancers := 0
	for _, r := range rows {
		if r.balances {
			balancers++
		} else {
			counts[r.state]++
		}
	}
	var parts []string
	for _, s := range []struct {
		mark mark
		word string
	}{{failed, "failed"}, {running, "running"}, {done, "done"}, {waiting, "waiting"}} {
		if n := counts[s.mark]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.word))
		}
	}
	switch {
	case balancers == 1 && all:
		parts = append(parts, "1 load balancer")
	case balancers > 1 && all:
		parts = append(parts, fmt.Sprintf("%d load balancers", balancers))
	}
	return strings.Join(parts, ", ")
}

// choose picks the rows for room lines, in the order of the board.
func (b *board) choose(room int) (shown, hidden []*row) {
	if len(b.rows) <= room {
		return b.rows, nil
	}
	room = max(room-1, 0) // a line counts the hidden
	rank := func(r *row) int {
		if r.balances { // they are few, and silent while all is well
			return [5]int{failed: 0, running: 1, waiting: 5}[r.state]
		}
		return [5]int{failed: 0, running: 2, skipped: 2, waiting: 3, done: 4}[r.state]
	}
	byRank := slices.Clone(b.rows)
	slices.SortStableFunc(byRank, func(x, y *row) int { return cmp.Compare(rank(x), rank(y)) })
	visible := map[*row]bool{}
	for _, r := range byRank[:room] {
		visible[r] = true
	}
	for _, r := range b.rows {
		if visible[r] {
			shown = append(shown, r)
		} else {
			hidden = append(hidden, r)
		}
	}
	return shown, hidden
}

// A layout is the widths of the board's columns.
type layout struct {
	host, text int
	named      bool // a column for every step, with its name above
}

func (b *board) layout(width int) layout {
	host := len("HOST")
	for _, r := range b.rows {
		host = max(host, ansi.StringWidth(r.name))
	}
	l := layout{host: min(host, max(width/4, 4)), named: width >= 90}
	l.text = max(width-ansi.StringWidth(l.header()), 0)
	return l
}

func (l layout) header() string {
	h := fit("HOST", l.host) + "  "
	if !l.named {
		return h + "STEPS    "
	}
	for _, s := range orchestrator.Steps() {
		h += strings.ToUpper(string(s)) + " "
	}
	return h + " "
}

func (b *board) line(l layout, r *row) string {
	var c paint
	switch r.state {
	case failed:
		c = red
	case done, waiting:
		c = faint
	case running, skipped:
	}
	text := ansi.Truncate(r.text, l.text, "…")
	return strings.TrimRight(fit(r.name, l.host)+"  "+b.cells(l, r)+" "+b.palette.paint(c, text), " ")
}

// cells are the marks of a row, as wide as the header has them.
func (b *board) cells(l layout, r *row) string {
	switch {
	case r.balances && l.named:
		return b.palette.paint(faint, pad("load balancer", ansi.StringWidth(l.header())-l.host-len("  ")-1))
	case r.balances:
		return b.palette.paint(faint, "balancer")
	}
	var cells strings.Builder
	for i, s := range orchestrator.Steps() {
		cell := b.palette.paint(colour(r.cells[i], s), b.glyphs[r.cells[i]])
		if l.named {
			cell = pad(cell, len(s)+1)
		}
		cells.WriteString(cell)
	}
	if !l.named {
		cells.WriteString(" ")
	}
	return cells.String()
}

// colour paints what is over in teal, the switch, after which green serves,
// in green, and what goes on in blue.
func colour(m mark, s orchestrator.Step) paint {
	switch {
	case m == failed:
		return red
	case m == running:
		return blue
	case m == done && s == orchestrator.StepSwitch:
		return green
	case m == done:
		return teal
	}
	return faint
}
