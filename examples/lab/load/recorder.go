package load

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// maxFailures is how many failures a report tells in full.
const maxFailures = 20

// A sample is what became of one request.
type sample struct {
	host    string
	class   Class
	release string // "" when no answer said it
	reused  bool   // on a connection that had served before
	began   time.Time
	took    time.Duration
	err     error
}

// A Switch tells when a host's proxy was made to send requests to another
// release. Both instants are on the clock of the machine that sends the load.
type Switch struct {
	Host      string    // "": every host that gets load
	Release   string    // that answers from now on
	Began     time.Time // before here the release cannot answer; zero: it may have answered at any time before
	Confirmed time.Time // from here on no request that begins may be answered by an older one
}

// Together makes one switch of those of several servers to a release behind
// load balancers. Nobody can tell there which server has answered, so it begins
// with the first of them, is confirmed with the last, and is one of every host
// that gets load. None give a zero Switch.
func Together(all []Switch) Switch {
	var one Switch
	for i, s := range all {
		if i == 0 {
			one = Switch{Release: s.Release, Began: s.Began, Confirmed: s.Confirmed}
		}
		one.Began, one.Confirmed = earlier(one.Began, s.Began), later(one.Confirmed, s.Confirmed)
	}
	return one
}

// A Recorder collects what became of requests. Its methods may be called by
// several goroutines.
type Recorder struct {
	mu       sync.Mutex
	samples  []sample
	failures []Failure
	switches []Switch
}

func (r *Recorder) add(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.err != nil && len(r.failures) < maxFailures {
		r.failures = append(r.failures, Failure{
			Host: s.host, Class: s.class, Release: s.release, Time: s.began, Took: s.took, Reused: s.reused, Text: s.err.Error(),
		})
	}
	s.err = cleared(s.err)
	r.samples = append(r.samples, s)
}

// cleared keeps of an error that there was one, so that a long run of failures
// costs little memory.
func cleared(err error) error {
	if err == nil {
		return nil
	}
	return errTold
}

// Switched tells of a switch. It may be told late: reports look at the times.
func (r *Recorder) Switched(s Switch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.switches = append(r.switches, s)
}

// Count returns the number of requests so far, and of those that failed.
func (r *Recorder) Count() (requests, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.samples {
		if r.samples[i].err != nil {
			failed++
		}
	}
	return len(r.samples), failed
}

// Answers returns how many answers each release gave to the requests that began
// in a time, good answers or not. In a canary they show the shares.
func (r *Recorder) Answers(from, to time.Time) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := map[string]int{}
	for i := range r.samples {
		if s := &r.samples[i]; s.release != "" && !s.began.Before(from) && s.began.Before(to) {
			of[s.release]++
		}
	}
	return of
}

// Report returns what has become of all requests that have ended.
func (r *Recorder) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := Report{Requests: len(r.samples), Failures: slices.Clone(r.failures)}
	if len(r.samples) == 0 {
		return rep
	}
	switches := map[string][]Switch{}
	classes := map[Class]*ClassReport{}
	releases := map[[2]string]*ReleaseReport{}
	took := map[Class][]time.Duration{}
	first, last := r.samples[0].began, r.samples[0].began
	for i := range r.samples {
		s := &r.samples[i]
		first, last = earlier(first, s.began), later(last, s.began.Add(s.took))
		c := entry(classes, s.class, ClassReport{Class: s.class})
		c.Requests++
		took[s.class] = append(took[s.class], s.took)
		if s.err != nil {
			c.Failed++
			rep.Failed++
		}
		if s.release == "" {
			continue
		}
		rel := entry(releases, [2]string{s.host, s.release}, ReleaseReport{Host: s.host, Release: s.release, First: s.began, Last: s.began})
		rel.Requests++
		rel.First, rel.Last = earlier(rel.First, s.began), later(rel.Last, s.began)
		if _, ok := switches[s.host]; !ok {
			switches[s.host] = switchesOf(s.host, r.switches)
		}
		if wrongSide(s, switches[s.host]) {
			c.Wrong++
			if s.reused {
				rep.WrongReused++
			} else {
				rep.WrongNew++
			}
		}
	}
	rep.Took = last.Sub(first)
	for _, class := range Classes() {
		if c := classes[class]; c != nil {
			c.Median, c.P99, c.Longest = spread(took[class])
			rep.Classes = append(rep.Classes, *c)
		}
	}
	for _, rel := range releases {
		rep.Releases = append(rep.Releases, *rel)
	}
	slices.SortFunc(rep.Releases, func(a, b ReleaseReport) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), a.First.Compare(b.First))
	})
	return rep
}

// wrongSide reports whether a request began after a confirmed switch and was
// answered by another release than that of the switch, though the next switch
// had not begun when it ended.
func wrongSide(s *sample, switches []Switch) bool {
	// The first switch that was not confirmed when the request began.
	next, _ := slices.BinarySearchFunc(switches, s.began, func(w Switch, began time.Time) int {
		if w.Confirmed.Before(began) {
			return -1
		}
		return 1
	})
	if next == 0 || s.release == switches[next-1].Release {
		return false
	}
	if next < len(switches) && s.release == switches[next].Release {
		return s.began.Add(s.took).Before(switches[next].Began)
	}
	return true
}

// switchesOf returns a host's switches in the order of time.
func switchesOf(host string, all []Switch) []Switch {
	var of []Switch
	for _, s := range all {
		if s.Host == host || s.Host == "" {
			of = append(of, s)
		}
	}
	slices.SortFunc(of, func(a, b Switch) int { return a.Confirmed.Compare(b.Confirmed) })
	return of
}

// entry returns the value of a key, first put there when it is new.
func entry[K comparable, V any](m map[K]*V, key K, otherwise V) *V {
	v, ok := m[key]
	if !ok {
		v = &otherwise
		m[key] = v
	}
	return v
}

// spread returns the median, the 99th percentile and the longest.
func spread(all []time.Duration) (median, p99, longest time.Duration) {
	slices.Sort(all)
	n := len(all)
	return all[n/2], all[min(n-1, n*99/100)], all[n-1]
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
