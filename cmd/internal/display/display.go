package display

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"github.com/teal-deploy/teal/orchestrator"
)

// A Renderer shows a run. Event may be called by several goroutines at the
// same time and does not block on a terminal; Finish is called once, after the
// last event, and returns the first error of writing.
type Renderer interface {
	Event(e orchestrator.Event)
	Finish(r orchestrator.Result) error
}

// Options choose a Renderer.
type Options struct {
	Out    io.Writer // standard output, as a rule
	JSON   bool
	Title  string // "deploy shop"
	Names  Names
	Getenv func(string) string
}

// Names are the hosts of a run, in their order, as far as they are known.
// Balancers are those that are load balancers and nothing else: they go through
// no steps.
type Names struct{ Hosts, Balancers []string }

// width is the number of columns of the longest name.
func (n Names) width() int {
	width := 0
	for _, name := range slices.Concat(n.Hosts, n.Balancers) {
		width = max(width, ansi.StringWidth(clean(name)))
	}
	return width
}

// New returns the renderer that suits o: JSON when asked for; the live board
// on a terminal; else plain lines. CI, NO_COLOR and TERM=dumb ask for plain
// lines as well.
func New(o Options) Renderer {
	if o.JSON {
		return NewJSON(o.Out)
	}
	f, ok := o.Out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || o.Getenv("CI") != "" || o.Getenv("NO_COLOR") != "" || o.Getenv("TERM") == "dumb" {
		return NewPlain(o.Out, o.Names)
	}
	return NewLive(f, o.Title, o.Names, speaksUTF8(o.Getenv))
}

// speaksUTF8 follows the order of the locale's variables.
func speaksUTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := getenv(name); value != "" {
			return strings.Contains(strings.ReplaceAll(strings.ToLower(value), "-", ""), "utf8")
		}
	}
	return false
}

// Tee returns a renderer that hands everything to all of rs, in their order.
func Tee(rs ...Renderer) Renderer { return tee(rs) }

// A Pauser is a Renderer that draws where somebody else wants to write.
type Pauser interface {
	// Pause clears what is drawn and draws nothing until resume is called.
	// Events go on being collected.
	Pause() (resume func())
}

// Pause pauses r when it draws, and does nothing otherwise.
func Pause(r Renderer) (resume func()) {
	if p, ok := r.(Pauser); ok {
		return p.Pause()
	}
	return func() {}
}

type tee []Renderer

// Pause is part of Pauser.
func (t tee) Pause() (resume func()) {
	var resumes []func()
	for _, r := range t {
		resumes = append(resumes, Pause(r))
	}
	return func() {
		for _, resume := range resumes {
			resume()
		}
	}
}

func (t tee) Event(e orchestrator.Event) {
	for _, r := range t {
		r.Event(e)
	}
}

func (t tee) Finish(result orchestrator.Result) error {
	var errs []error
	for _, r := range t {
		errs = append(errs, r.Finish(result))
	}
	return errors.Join(errs...)
}

// terminalWidth is the number of columns of w, 0 when it is no terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
