package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestResultIsTheLastLine(t *testing.T) {
	const out = `{"time":"2026-01-02T03:04:05.5Z","run":"r1","host":"h1","step":"image","status":"started"}
{"time":"2026-01-02T03:04:06Z","run":"r1","host":"h1","step":"image","status":"failed","text":"pull","error":"no such image"}
{"result":{"run":"r1","outcome":"failed","hosts":[{"host":"h1","state":"done","serving":"r1","version":"2","slot":"green","switch_ms":3.5,"switched_at":"2026-01-02T03:04:07Z","blue_gone_at":"2026-01-02T03:04:17Z"}]}}
`
	var events []event
	got, err := readRun(strings.NewReader(out), func(e event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := result{Outcome: "failed", Hosts: []hostResult{{
		Host: "h1", State: "done", Serving: "r1", Version: "2", Slot: "green",
		SwitchMS: 3.5, SwitchedAt: at.Add(2 * time.Second), BlueGoneAt: at.Add(12 * time.Second),
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantEvents := []event{
		{Time: at.Add(time.Second / 2), Host: "h1", Step: "image", Status: "started"},
		{Time: at.Add(time.Second), Host: "h1", Step: "image", Status: "failed", Text: "pull", Error: "no such image"},
	}
	if diff := cmp.Diff(wantEvents, events); diff != "" {
		t.Error(diff)
	}
}

func TestOutputWithoutAResultIsAnError(t *testing.T) {
	tests := []struct{ name, out, want string }{
		{"nothing", "", "without a result"},
		{"events only", `{"host":"h1","step":"image","status":"done"}`, "without a result"},
		{"a line for people", "teal: internal error\n", "teal: internal error"},
		{"a line without an end", strings.Repeat("x", 2<<20), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readRun(strings.NewReader(tt.out), func(event) {})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}
