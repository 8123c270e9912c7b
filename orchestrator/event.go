package orchestrator

import (
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// A Step names a part of a deployment on one host.
type Step string

// The seven steps, in their order, and what comes before and after them.
const (
	StepConnect  Step = "connect" // SSH, lock, observation, repair
	StepImage    Step = "image"
	StepCode     Step = "code"
	StepCreate   Step = "create"
	StepInstall  Step = "install"
	StepTest     Step = "test"
	StepSwitch   Step = "switch"
	StepTeardown Step = "teardown"
	StepUndo     Step = "undo" // green removed, or the switch taken back
)

// Steps returns the seven steps in their order.
func Steps() []Step {
	return []Step{StepImage, StepCode, StepCreate, StepInstall, StepTest, StepSwitch, StepTeardown}
}

// A Status is what an Event says of its step.
type Status string

// What an event says.
const (
	StatusStarted Status = "started"
	StatusOutput  Status = "output" // a line that a command of the step printed
	StatusInfo    Status = "info"   // a line for people
	StatusWarning Status = "warning"
	StatusDone    Status = "done"
	StatusSkipped Status = "skipped"
	StatusFailed  Status = "failed"
)

// An Event is something that happened. The engine emits events, as values
// and in order for one host; cmd renders them, and the journal keeps them. No
// secret is in an event: values are redacted before it is emitted.
type Event struct {
	Time   time.Time
	Run    string // the run's id
	Host   string // "" for the whole run
	Step   Step   // "" for what belongs to no step
	Status Status
	Text   string // one line, may be empty
	Err    error  // with StatusFailed and StatusWarning
}

// A HostState is how a run stands, or ended, on one host.
type HostState string

// The states of a host.
const (
	Pending     HostState = "pending"
	Unreachable HostState = "unreachable"
	Skipped     HostState = "skipped"  // nothing to do, or not started
	Failed      HostState = "failed"   // on blue, green removed
	Ready       HostState = "ready"    // green is tested
	Switched    HostState = "switched" // green serves; with an error: something failed behind the switch
	Verified    HostState = "verified" // the public listener answers from green
	Done        HostState = "done"
	RolledBack  HostState = "rolled back"
	Unknown     HostState = "unknown" // it is not known what serves
)

// A HostResult is how a run ended on one host.
type HostResult struct {
	Host     string
	State    HostState
	Serving  string        // release id that serves now, "" when none or unknown
	Version  string        // of Serving
	Slot     proxy.Slot    // of Serving
	Step     Step          // the one that failed
	Err      error         // why
	Log      []string      // the last lines that a failed green wrote
	Switch   time.Duration // what the switch took; 0: there was none
	SwitchAt time.Time     // when the proxy confirmed it
	BlueGone time.Time     // when the former release was seen gone; zero: not seen, or there was none
	Teardown string        // what is still to be removed and when, for people; "": nothing
}

// A Result is how a run ended.
type Result struct {
	Run     string
	Command string // deploy, rollback
	Outcome Outcome
	Release string // id
	Version string
	Commit  string
	Digest  string
	Hosts   []HostResult
	Err     error // what ended the whole run, when it was no single host
	Started time.Time
	Ended   time.Time
}

// An Outcome is the one word for how a run ended. Code is its exit code.
type Outcome string

// The outcomes. The words stand in the JSON result and are stable.
const (
	OutcomeDone        Outcome = "done"
	OutcomeNothing     Outcome = "nothing to do"
	OutcomeInternal    Outcome = "internal error"
	OutcomeUsage       Outcome = "usage"
	OutcomeChanges     Outcome = "changes"     // plan only
	OutcomeFailed      Outcome = "failed"      // some hosts failed and are back on blue
	OutcomeUnreachable Outcome = "unreachable" // some hosts; the rest is done, or on blue when the limits forbid to go on without them
	OutcomeMixed       Outcome = "mixed"       // the fleet is mixed and needs a decision
	OutcomeLocked      Outcome = "locked"
	OutcomeAborted     Outcome = "aborted"
	OutcomeReturned    Outcome = "returned" // switched, and the proxy or green did not prove it: back on blue
)

// Code returns the exit code.
func (o Outcome) Code() int {
	switch o {
	case OutcomeDone, OutcomeNothing:
		return 0
	case OutcomeUsage:
		return 2
	case OutcomeChanges:
		return 3
	case OutcomeFailed:
		return 4
	case OutcomeUnreachable:
		return 5
	case OutcomeMixed:
		return 6
	case OutcomeLocked:
		return 7
	case OutcomeAborted:
		return 8
	case OutcomeReturned:
		return 9
	case OutcomeInternal:
		return 1
	}
	return 1
}
