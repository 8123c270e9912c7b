package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// An event is a line of what teal --json prints.
type event struct {
	Time   time.Time `json:"time"`
	Host   string    `json:"host"`
	Step   string    `json:"step"`
	Status string    `json:"status"`
	Text   string    `json:"text"`
	Error  string    `json:"error"`
}

// A result is the last line.
type result struct {
	Outcome string       `json:"outcome"`
	Error   string       `json:"error"`
	Hosts   []hostResult `json:"hosts"`
}

// A hostResult is how a run ended on one host.
type hostResult struct {
	Host       string    `json:"host"`
	State      string    `json:"state"`
	Serving    string    `json:"serving"`
	Version    string    `json:"version"`
	Slot       string    `json:"slot"`
	Error      string    `json:"error"`
	SwitchMS   float64   `json:"switch_ms"`
	SwitchedAt time.Time `json:"switched_at"`
	BlueGoneAt time.Time `json:"blue_gone_at"`
}

// readRun reads what teal --json prints, hands every event to each, and
// returns the result. A line that is no JSON is an error, and so is an end
// without a result.
func readRun(r io.Reader, each func(event)) (result, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var last *result
	for lines.Scan() {
		var line struct {
			event
			Result *result `json:"result"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return result{}, fmt.Errorf("read what teal prints: %w: %s", err, lines.Text())
		}
		if line.Result != nil {
			last = line.Result
			continue
		}
		each(line.event)
	}
	if err := lines.Err(); err != nil {
		return result{}, fmt.Errorf("read what teal prints: %w", err)
	}
	if last == nil {
		return result{}, errors.New("read what teal prints: it ended without a result")
	}
	return *last, nil
}
