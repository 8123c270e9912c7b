package display

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/teal-deploy/teal/orchestrator"
)

// schema is the version of the JSON lines. A field may be added within a
// version; one that changes or goes makes a new version.
const schema = 1

// NewJSON returns a renderer that writes a JSON object on a line for each
// event, and one with the result at the end.
func NewJSON(w io.Writer) Renderer { return &jsonLines{w: w} }

type jsonLines struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

func (j *jsonLines) Event(e orchestrator.Event) {
	j.write(jsonEvent{
		Schema: schema, Time: e.Time, Run: e.Run, Host: e.Host, Step: string(e.Step),
		Status: string(e.Status), Text: e.Text, Error: text(e.Err),
	})
}

func (j *jsonLines) Finish(r orchestrator.Result) error {
	j.write(struct {
		Schema int        `json:"schema"`
		Result jsonResult `json:"result"`
	}{schema, newJSONResult(r)})
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// write writes v as one line, in one call, so that lines of several writers
// to one file stay whole.
func (j *jsonLines) write(v any) {
	line, err := json.Marshal(v)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.w.Write(append(tame(line), '\n'))
	}
	j.err = cmp.Or(j.err, err)
}

// tame escapes what JSON lets through and a terminal would obey. Such a
// character can only stand inside a string.
func tame(line []byte) []byte {
	var b bytes.Buffer
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		if unsafe(r) && r != utf8.RuneError {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.Write(line[:size])
		}
		line = line[size:]
	}
	return b.Bytes()
}

type jsonEvent struct {
	Schema int       `json:"schema"`
	Time   time.Time `json:"time"`
	Run    string    `json:"run"`
	Host   string    `json:"host,omitempty"`
	Step   string    `json:"step,omitempty"`
	Status string    `json:"status"`
	Text   string    `json:"text,omitempty"`
	Error  string    `json:"error,omitempty"`
}

type jsonResult struct {
	Run     string     `json:"run"`
	Command string     `json:"command"`
	Outcome string     `json:"outcome"`
	Code    int        `json:"code"`
	Release string     `json:"release,omitempty"`
	Version string     `json:"version,omitempty"`
	Commit  string     `json:"commit,omitempty"`
	Digest  string     `json:"digest,omitempty"`
	Started time.Time  `json:"started"`
	Ended   time.Time  `json:"ended"`
	Hosts   []jsonHost `json:"hosts"`
	Error   string     `json:"error,omitempty"`
}

type jsonHost struct {
	Host       string    `json:"host"`
	State      string    `json:"state"`
	Serving    string    `json:"serving,omitempty"`
	Version    string    `json:"version,omitempty"`
	Slot       string    `json:"slot,omitempty"`
	Step       string    `json:"step,omitempty"`
	Error      string    `json:"error,omitempty"`
	Log        []string  `json:"log,omitempty"`
	SwitchMS   float64   `json:"switch_ms,omitzero"`
	SwitchedAt time.Time `json:"switched_at,omitzero"`
	BlueGoneAt time.Time `json:"blue_gone_at,omitzero"`
	Teardown   string    `json:"teardown,omitempty"`
}

func newJSONResult(r orchestrator.Result) jsonResult {
	hosts := make([]jsonHost, len(r.Hosts))
	for i, h := range r.Hosts {
		hosts[i] = jsonHost{
			Host: h.Host, State: string(h.State), Serving: h.Serving, Version: h.Version, Slot: string(h.Slot),
			Step: string(h.Step), Error: text(h.Err), Log: h.Log,
			SwitchMS:   float64(h.Switch.Microseconds()) / 1000,
			SwitchedAt: h.SwitchAt, BlueGoneAt: h.BlueGone, Teardown: h.Teardown,
		}
	}
	return jsonResult{
		Run: r.Run, Command: r.Command, Outcome: string(r.Outcome), Code: r.Outcome.Code(),
		Release: r.Release, Version: r.Version, Commit: r.Commit, Digest: r.Digest,
		Started: r.Started, Ended: r.Ended, Hosts: hosts, Error: text(r.Err),
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
