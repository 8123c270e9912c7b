package load

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at is an instant, in milliseconds from some other.
func at(ms int) time.Time {
	return time.UnixMilli(1_700_000_000_000).Add(time.Duration(ms) * time.Millisecond)
}

func TestWrongSideLooksAtTheBeginningOfARequest(t *testing.T) {
	switches := []Switch{
		{Host: "h1", Release: "1", Confirmed: at(0)},
		{Host: "h1", Release: "2", Began: at(90), Confirmed: at(100)},
		{Host: "h1", Release: "1", Began: at(190), Confirmed: at(200)},
	}
	tests := []struct {
		name        string
		release     string
		began, took int
		want        bool
	}{
		{"before every switch", "0", -10, 5, false},
		{"the only release", "1", 50, 5, false},
		{"older than all", "0", 50, 5, true},
		{"open while switching, answered by blue", "1", 95, 50, false},
		{"open while switching, answered by green", "2", 80, 50, false},
		{"green before the switch began", "2", 50, 5, true},
		{"after the switch, by green", "2", 101, 5, false},
		{"after the switch, by blue", "1", 101, 5, true},
		{"after the switch, by blue, for long", "1", 101, 80, true},
		{"after the switch, open while going back", "1", 150, 45, false},
		{"in the way back, by either", "2", 195, 50, false},
		{"after the way back", "1", 201, 5, false},
		{"after the way back, by green", "2", 201, 5, true},
		{"at the very instant", "1", 100, 5, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &sample{host: "h1", release: tt.release, began: at(tt.began), took: time.Duration(tt.took) * time.Millisecond}
			if got := wrongSide(s, switches); got != tt.want {
				t.Errorf("wrong side %t, want %t", got, tt.want)
			}
		})
	}
	if wrongSide(&sample{release: "1", began: at(0)}, nil) {
		t.Error("without a switch there is no wrong side")
	}
}

func TestSwitchesOfOneHostSayNothingOfAnother(t *testing.T) {
	var r Recorder
	r.Switched(Switch{Host: "h2", Release: "2", Began: at(10), Confirmed: at(20)})
	r.add(sample{host: "h1", class: KeepAlive, release: "1", began: at(30)})
	r.add(sample{host: "h2", class: KeepAlive, release: "1", began: at(30), reused: true})
	if rep := r.Report(); rep.WrongNew != 0 || rep.WrongReused != 1 {
		t.Errorf("wrong side: %d new, %d kept; want 0, 1", rep.WrongNew, rep.WrongReused)
	}
}

func TestSwitchEverywhereIsOneOfEachHost(t *testing.T) {
	var r Recorder
	r.Switched(Switch{Release: "2", Began: at(10), Confirmed: at(20)})
	r.Switched(Switch{Host: "lb2", Release: "3", Began: at(30), Confirmed: at(40)})
	for _, s := range []sample{
		{host: "lb1", release: "1", began: at(15)},
		{host: "lb1", release: "2", began: at(50)},
		{host: "lb1", release: "1", began: at(21)}, // wrong
		{host: "lb2", release: "1", began: at(21)}, // wrong
		{host: "lb2", release: "2", began: at(50)}, // wrong
		{host: "lb2", release: "3", began: at(50)},
	} {
		s.class = GRPC
		r.add(s)
	}
	if rep := r.Report(); rep.WrongNew != 3 {
		t.Errorf("wrong side: %d, want 3", rep.WrongNew)
	}
}

func TestSwitchesOfSeveralServersBecomeOne(t *testing.T) {
	got := Together([]Switch{
		{Host: "h1", Release: "2", Began: at(11), Confirmed: at(20)},
		{Host: "h2", Release: "2", Began: at(10), Confirmed: at(30)},
		{Host: "h3", Release: "2", Began: at(12), Confirmed: at(25)},
	})
	if diff := cmp.Diff(Switch{Release: "2", Began: at(10), Confirmed: at(30)}, got); diff != "" {
		t.Error(diff)
	}
	if got := Together(nil); got != (Switch{}) {
		t.Errorf("none become %+v", got)
	}
}

func TestAnswersAreThoseToRequestsOfATime(t *testing.T) {
	var r Recorder
	for _, s := range []sample{
		{release: "1", began: at(9)},
		{release: "1", began: at(10)},
		{release: "2", began: at(15), err: errors.New("cut")},
		{release: "1", began: at(19), took: time.Hour},
		{began: at(12), err: errors.New("refused")},
		{release: "2", began: at(20)},
	} {
		r.add(s)
	}
	if diff := cmp.Diff(map[string]int{"1": 2, "2": 1}, r.Answers(at(10), at(20))); diff != "" {
		t.Error(diff)
	}
}

func TestSwitchesMayBeToldLateAndOutOfOrder(t *testing.T) {
	var r Recorder
	r.add(sample{host: "h1", class: Post, release: "1", began: at(30)})
	r.add(sample{host: "h1", class: Post, release: "2", began: at(50)})
	r.Switched(Switch{Host: "h1", Release: "3", Began: at(40), Confirmed: at(41)})
	r.Switched(Switch{Host: "h1", Release: "2", Began: at(10), Confirmed: at(11)})
	if rep := r.Report(); rep.WrongNew != 2 {
		t.Errorf("wrong side: %d, want both", rep.WrongNew)
	}
}

func TestReportCountsByClassAndRelease(t *testing.T) {
	var r Recorder
	ms := time.Millisecond
	r.Switched(Switch{Host: "h1", Release: "2", Began: at(5), Confirmed: at(6)})
	r.add(sample{host: "h1", class: KeepAlive, release: "1", began: at(0), took: 4 * ms})
	r.add(sample{host: "h1", class: KeepAlive, release: "2", began: at(10), took: 2 * ms, reused: true})
	r.add(sample{host: "h1", class: KeepAlive, release: "1", began: at(11), took: 3 * ms, reused: true})
	r.add(sample{host: "h2", class: Post, began: at(20), took: 30 * ms, err: errors.New("read the answer: EOF"), reused: true})
	want := Report{
		Took: 50 * ms, Requests: 4, Failed: 1, WrongReused: 1,
		Classes: []ClassReport{
			{Class: KeepAlive, Requests: 3, Wrong: 1, Median: 3 * ms, P99: 4 * ms, Longest: 4 * ms},
			{Class: Post, Requests: 1, Failed: 1, Median: 30 * ms, P99: 30 * ms, Longest: 30 * ms},
		},
		Releases: []ReleaseReport{
			{Host: "h1", Release: "1", Requests: 2, First: at(0), Last: at(11)},
			{Host: "h1", Release: "2", Requests: 1, First: at(10), Last: at(10)},
		},
		Failures: []Failure{{Host: "h2", Class: Post, Time: at(20), Took: 30 * ms, Reused: true, Text: "read the answer: EOF"}},
	}
	got := r.Report()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if got.OK() || got.Wrong() != 1 {
		t.Errorf("OK %t, wrong %d; want false, 1", got.OK(), got.Wrong())
	}
	var text strings.Builder
	if err := got.WriteTable(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"  client  requests  failed  wrong side  median  99 %  longest",
		"     get         3       0           1     3ms   4ms      4ms",
		"    post         1       1           0    30ms  30ms     30ms",
		"     all         4       1           1                   50ms",
		"  host  release  answered         first          last",
		"post of h2 on a kept connection, after 30ms: read the answer: EOF",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("the table lacks %q:\n%s", line, text.String())
		}
	}
	var doc strings.Builder
	if err := got.WriteJSON(&doc); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(doc.String()), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.Classes, back.Classes); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyReportIsNotFine(t *testing.T) {
	rep := new(Recorder).Report()
	if rep.OK() {
		t.Error("no requests, and all is well")
	}
	if err := rep.WriteTable(new(strings.Builder)); err != nil {
		t.Error(err)
	}
}

func TestShortRoundsForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234567 * time.Nanosecond: "1.23ms", 12345678 * time.Nanosecond: "12ms", 3 * time.Second: "3s",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %q, want %q", d, got, want)
		}
	}
}
