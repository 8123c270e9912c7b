package orchestrator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A Connection is a Host that can end and be closed.
type Connection interface {
	plugins.Host
	// Listen has the host listen at a TCP address of its own, until the
	// listener is closed; what connects there arrives here. ctx bounds the
	// request alone. A refusal is an *Error of kind Denied.
	Listen(ctx context.Context, address string) (net.Listener, error)
	// Done is closed when the connection has ended, for whatever reason.
	Done() <-chan struct{}
	Close() error
}

// A Deployer carries out commands on the hosts of an app. Its fields are its
// options and are set by cmd, which wires the parts together.
type Deployer struct {
	Dial    func(ctx context.Context, h inventory.Host) (Connection, error)
	Runtime func(ctx context.Context, app spec.App) (plugins.Runtime, error)
	Proxy   func(kind string) (proxy.Proxy, error)
	Store   record.Store
	Emit    func(Event) // called by one goroutine at a time; nil: nobody listens
	By      string      // who, from where: user@machine
	PID     int         // of this process, for whoever finds the lock held
	Images  string      // the folder of image.Local on the operator's machine; "": none

	// Redacts is handed what blacks secrets out of a text as soon as a run knows
	// them, for what is logged beside Emit; nil: nobody asks.
	Redacts func(redact func(string) string)

	undoing   time.Duration // 0: undoLimit
	switching time.Duration // 0: switchLimit
	telling   time.Duration // 0: tellEvery
}

// A Request says what a command is about.
type Request struct {
	File  *spec.File
	Hosts []inventory.Host // selected, in the inventory's order

	// Balancers are the hosts of proxy.hosts. Servers are the names of all
	// hosts of the app, also of those that were not selected: a load balancer
	// forgets a member that is not among them. Empty: none is forgotten.
	Balancers []inventory.Host
	Servers   []string

	Run string // the id of the run; "": a new one

	Version  string // what the operator calls the release; "": the commit, else the image's tag
	Force    bool   // deploy even where nothing differs
	Detach   bool   // end when the switch is confirmed, without watching green
	EndDrain bool   // end the drain of an earlier deployment that still holds the free slot
}

// ErrNoHosts says that a request selects no host.
var ErrNoHosts = errors.New("no hosts are selected")

// NewRunID returns an id of a run that sorts by time: 20261122-213005-4f2a91.
func NewRunID(now time.Time) string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return now.UTC().Format("20060102-150405") + "-" + hex.EncodeToString(b[:])
}

// atOnce is how many hosts are worked on at the same time, so that thousands
// of them cost memory for hundreds.
const atOnce = 256

// each calls f for every element, many at the same time, and returns their
// errors in order.
func each[T any](items []T, f func(T) error) []error { return eachOf(atOnce, items, f) }

// eachOf is each with width calls at the same time.
func eachOf[T any](width int, items []T, f func(T) error) []error {
	errs := make([]error, len(items))
	slots := make(chan struct{}, width)
	var wg sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(item)
		})
	}
	wg.Wait()
	return errs
}

// orphan returns a context that outlives ctx's end, for undoing and for
// finishing what must not stop half-way, with a deadline of its own.
func orphan(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit,
		fmt.Errorf("no answer within %s", limit))
}
