package load

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// A Report says what became of the requests. Its durations are in nanoseconds
// in JSON.
type Report struct {
	Took        time.Duration   `json:"took"`              // from the first request to the end of the last
	Requests    int             `json:"requests"`          // that have ended, well or not; a websocket is one
	Failed      int             `json:"failed"`            // that got no whole, good answer
	WrongNew    int             `json:"wrong_side_new"`    // wrong side, on new connections
	WrongReused int             `json:"wrong_side_reused"` // wrong side, on kept ones
	Classes     []ClassReport   `json:"classes"`
	Releases    []ReleaseReport `json:"releases"`
	Failures    []Failure       `json:"failures"` // the first 20
}

// A ClassReport is about the requests of one class.
type ClassReport struct {
	Class    Class         `json:"class"`
	Requests int           `json:"requests"`
	Failed   int           `json:"failed"`
	Wrong    int           `json:"wrong_side"`
	Median   time.Duration `json:"median"`
	P99      time.Duration `json:"p99"`
	Longest  time.Duration `json:"longest"`
}

// A ReleaseReport is about what one release on one host has answered.
type ReleaseReport struct {
	Host     string    `json:"host"`
	Release  string    `json:"release"`
	Requests int       `json:"requests"`
	First    time.Time `json:"first"` // when the first of its requests began
	Last     time.Time `json:"last"`  // when the last of them began
}

// A Failure is a request that failed.
type Failure struct {
	Host    string        `json:"host"`
	Class   Class         `json:"class"`
	Release string        `json:"release,omitempty"`
	Time    time.Time     `json:"time"` // when it began
	Took    time.Duration `json:"took"`
	Reused  bool          `json:"reused"` // on a kept connection
	Text    string        `json:"text"`
}

// Wrong returns the number of requests that were answered by the wrong side.
func (r *Report) Wrong() int { return r.WrongNew + r.WrongReused }

// OK reports whether there were requests, none failed, and none was answered
// by the wrong side.
func (r *Report) OK() bool { return r.Requests > 0 && r.Failed == 0 && r.Wrong() == 0 }

// WriteJSON writes the report as one JSON document.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "client\trequests\tfailed\twrong side\tmedian\t99 %\tlongest\t")
	for _, c := range r.Classes {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t\n",
			c.Class, c.Requests, c.Failed, c.Wrong, short(c.Median), short(c.P99), short(c.Longest))
	}
	fmt.Fprintf(t, "all\t%d\t%d\t%d\t\t\t%s\t\n", r.Requests, r.Failed, r.Wrong(), short(r.Took))
	if err := t.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "host\trelease\tanswered\tfirst\tlast\t")
	for _, rel := range r.Releases {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t\n", rel.Host, rel.Release, rel.Requests, clock(rel.First), clock(rel.Last))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Failures {
		connection := "a new connection"
		if f.Reused {
			connection = "a kept connection"
		}
		if _, err := fmt.Fprintf(w, "failed: %s %s of %s on %s, after %s: %s\n",
			clock(f.Time), f.Class, f.Host, connection, short(f.Took), f.Text); err != nil {
			return err
		}
	}
	return nil
}

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }
