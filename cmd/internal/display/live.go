package display

import (
	"cmp"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/teal-deploy/teal/orchestrator"
)

const (
	refresh = 100 * time.Millisecond
	// linesAbove is how many lines are printed above the board at a time, and
	// stay free on the screen for it.
	linesAbove = 3
)

// NewLive returns a renderer that keeps a board of hosts and steps at the
// bottom of the terminal, prints what matters above it, and puts a summary in
// its place at the end. It draws from the first event on: what is asked before
// that has the terminal for itself. The caller must call Finish, which gives
// the cursor back. Utf8 says whether the terminal shows more than ASCII.
func NewLive(terminal *os.File, title string, names Names, utf8 bool) Renderer {
	return &live{terminal: terminal, host: names.width(), board: newBoard(title, names, time.Now(), true, utf8)}
}

var _ Pauser = (*live)(nil)

type live struct {
	terminal *os.File
	pauses   sync.Mutex // held while there is one

	mu      sync.Mutex
	board   *board
	above   []string // lines that are not printed yet
	host    int      // columns of the longest host name
	begun   bool     // there was an event
	resting bool     // nothing is to be drawn
	over    bool
	program chan error // gets the error of the program when it has ended; nil: none runs
	err     error      // of programs before
}

// Event only notes what happened; the program looks for it.
func (l *live) Event(e orchestrator.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.board.apply(e)
	if worthALine(e) {
		l.host = max(l.host, ansi.StringWidth(clean(e.Host)))
		l.above = append(l.above, eventLine(e, l.host))
	}
	l.begun = true
	l.draw()
}

// draw starts a program, when there is something to draw. The caller holds mu.
func (l *live) draw() {
	if !l.begun || l.resting || l.program != nil {
		return
	}
	ended := make(chan error, 1)
	l.program = ended
	program := tea.NewProgram(model{live: l},
		tea.WithInput(nil), tea.WithOutput(l.terminal), tea.WithoutSignalHandler(), tea.WithFPS(int(time.Second/refresh)))
	go func() {
		_, err := program.Run()
		ended <- err
	}()
}

// rest ends the program, which clears the board, and waits until it has.
func (l *live) rest() {
	l.mu.Lock()
	l.resting = true
	program := l.program
	l.program = nil
	l.mu.Unlock()
	if program == nil {
		return
	}
	err := <-program
	l.mu.Lock()
	l.err = cmp.Or(l.err, err)
	l.mu.Unlock()
}

// Pause is part of Pauser. The next pause waits for the end of this one.
func (l *live) Pause() (resume func()) {
	l.pauses.Lock()
	l.rest()
	return func() {
		l.mu.Lock()
		l.resting = l.over
		l.draw()
		l.mu.Unlock()
		l.pauses.Unlock()
	}
}

// worthALine picks what stays readable after the board has gone.
func worthALine(e orchestrator.Event) bool {
	switch e.Status {
	case orchestrator.StatusWarning, orchestrator.StatusFailed:
		return true
	case orchestrator.StatusInfo:
		return e.Host == ""
	case orchestrator.StatusStarted, orchestrator.StatusDone, orchestrator.StatusSkipped, orchestrator.StatusOutput:
	}
	return false
}

func (l *live) Finish(r orchestrator.Result) error {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.rest()
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := io.WriteString(l.terminal, strings.Join(append(l.above, ""), "\n"))
	return cmp.Or(l.err, err, summary(l.terminal, r, true))
}

// A model is the program's view of a live display.
type model struct {
	live          *live
	width, height int
}

var _ tea.Model = model{}

type tick struct{}

func nextTick() tea.Cmd {
	return tea.Tick(refresh, func(time.Time) tea.Msg { return tick{} })
}

func (m model) Init() tea.Cmd { return nextTick() }

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tick:
		m.live.mu.Lock()
		defer m.live.mu.Unlock()
		if m.live.resting {
			return m, tea.Quit
		}
		if lines := m.live.take(m.width); len(lines) > 0 {
			return m, tea.Sequence(tea.Println(strings.Join(lines, "\n")), nextTick())
		}
		return m, nextTick()
	}
	return m, nil
}

// take returns lines to print above the board, no wider than the screen, and
// no more than it has room for.
func (l *live) take(width int) []string {
	if width == 0 || len(l.above) == 0 {
		return nil
	}
	wrapped := strings.Split(ansi.Hardwrap(l.above[0], width, true), "\n")
	l.above = l.above[1:]
	if len(wrapped) > linesAbove {
		// The whole text stands in the summary and in the journal.
		wrapped = wrapped[:linesAbove]
	}
	for len(l.above) > 0 && len(wrapped) < linesAbove && ansi.StringWidth(l.above[0]) <= width {
		wrapped = append(wrapped, l.above[0])
		l.above = l.above[1:]
	}
	return wrapped
}

func (m model) View() tea.View {
	m.live.mu.Lock()
	defer m.live.mu.Unlock()
	text := ""
	if !m.live.resting && m.width > 0 {
		text = strings.Join(m.live.board.view(m.width, m.height-1-linesAbove, time.Now()), "\n")
	}
	v := tea.NewView(text)
	v.DisableBracketedPasteMode = true
	return v
}
