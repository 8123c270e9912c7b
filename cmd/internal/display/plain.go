package display

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/charmbracelet/x/ansi"

	"github.com/teal-deploy/teal/orchestrator"
)

// NewPlain returns a renderer that writes a line for each event, with columns
// as wide as hosts need, and a summary at the end:
//
//	21:30:05 web1 image    pulled sha256:ab12…
func NewPlain(w io.Writer, names Names) Renderer {
	return &plain{w: w, host: names.width()}
}

type plain struct {
	mu   sync.Mutex
	w    io.Writer
	host int // columns
	err  error
}

func (p *plain) Event(e orchestrator.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host = max(p.host, ansi.StringWidth(clean(e.Host)))
	_, err := fmt.Fprintln(p.w, eventLine(e, p.host))
	p.err = cmp.Or(p.err, err)
}

func (p *plain) Finish(r orchestrator.Result) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.err, Summary(p.w, r))
}

// stepWidth is the width of the longest step.
const stepWidth = len(orchestrator.StepTeardown)

// eventLine is an event as a line of text.
func eventLine(e orchestrator.Event, host int) string {
	line := fmt.Sprintf("%s %s %-*s %s", e.Time.Format("15:04:05"), pad(clean(e.Host), host), stepWidth, e.Step, eventText(e))
	return strings.TrimRight(line, " ")
}

// eventText is the event's text behind a word for its status, where the text
// does not say it.
func eventText(e orchestrator.Event) string {
	text := reason(e)
	switch e.Status {
	case orchestrator.StatusOutput:
		return "| " + text
	case orchestrator.StatusInfo:
		return text
	case orchestrator.StatusWarning, orchestrator.StatusFailed:
		return strings.TrimRight(string(e.Status)+": "+text, ": ")
	case orchestrator.StatusStarted, orchestrator.StatusDone, orchestrator.StatusSkipped:
	}
	if text == "" {
		return string(e.Status)
	}
	if e.Status == orchestrator.StatusSkipped {
		return "skipped: " + text
	}
	return text
}
