package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// Observe looks at what a host remembers of an app, and at the host. It runs
// one command (a second one, with become, only where the login user may not
// write in the folder), changes nothing and takes no lock. When a Pending is
// not Running, call Reap.
func (s Store) Observe(ctx context.Context, h plugins.Host, app string) (Observation, error) {
	op := "observe " + app
	if err := checkName("app", app); err != nil {
		return Observation{}, fail(h, op, plugins.Invalid, err)
	}
	out, err := run(ctx, h, op, command([]string{baseScript, holdingScript, observeScript}, s.root(), app, s.systemdFolder()))
	if err != nil {
		return Observation{}, err
	}
	o, err := parseObservation(out)
	if err != nil {
		return Observation{}, fail(h, op, plugins.Invalid, fmt.Errorf("in %s: %w", s.root(), err))
	}
	if o.Facts.BootID == "" {
		return Observation{}, fail(h, op, plugins.Unsupported, errors.New("the host has no /proc of Linux"))
	}
	if !o.Facts.Writable {
		out, err := run(ctx, h, op, &plugins.Command{Args: []string{"id", "-u"}, Become: true})
		if plugins.KindOf(err) == plugins.Lost || ctx.Err() != nil {
			return Observation{}, err
		}
		o.Facts.Writable = err == nil && strings.TrimSpace(string(out)) == "0"
	}
	return o, nil
}

// found collects the lines of the observe script.
type found struct {
	o       Observation
	ports   map[uint16]bool
	state   []byte
	owner   []byte
	others  [][]byte
	pending []*Pending
}

// parseObservation reads lines of "key value". A file of several lines has
// its key before each of them.
func parseObservation(out []byte) (Observation, error) {
	f := found{ports: map[uint16]bool{}}
	f.o.Facts.Tools = map[string]string{}
	f.o.Facts.AppPorts = map[string][]uint16{}
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if err := f.take(key, value); err != nil {
			return Observation{}, fmt.Errorf("%s %.80q: %w", key, value, err)
		}
	}
	return f.finish()
}

func (f *found) take(key, value string) error {
	var err error
	facts := &f.o.Facts
	switch key {
	case "now":
		var sec int64
		sec, err = strconv.ParseInt(value, 10, 64)
		facts.Now = time.Unix(sec, 0)
	case "user":
		facts.User = value
	case "uid":
		facts.UID, err = strconv.Atoi(value)
	case "boot":
		facts.BootID = value
	case "systemd":
		facts.Systemd = true
	case "reached":
		facts.Address = reachedAt(value)
	case "range":
		_, err = fmt.Sscan(value, &facts.EphemeralLow, &facts.EphemeralHigh)
	case "listen":
		err = f.listen(value)
	case "tool":
		name, path, _ := strings.Cut(value, " ")
		facts.Tools[name] = path
	case "writable":
		facts.Writable = true
	case "epoch":
		f.o.Epoch, err = strconv.ParseInt(value, 10, 64)
	case "held":
		f.o.Holder = &Owner{}
	case "owner":
		f.owner = append(f.owner, value...)
	case "state":
		f.state = append(append(f.state, value...), '\n')
	case "another":
		f.others = append(f.others, nil)
	case "other":
		last := &f.others[len(f.others)-1]
		*last = append(append(*last, value...), '\n')
	default:
		err = f.takePending(key, value)
	}
	return err
}

// takePending takes a line about the teardown whose line "pending" came last.
func (f *found) takePending(key, value string) error {
	if key == "pending" {
		p := &Pending{Connections: -1}
		f.pending = append(f.pending, p)
		return json.Unmarshal([]byte(value), &p.Teardown)
	}
	if len(f.pending) == 0 {
		return errors.New("not understood")
	}
	p := f.pending[len(f.pending)-1]
	var err error
	switch key {
	case "stopping":
		p.Stopping = true
	case "released":
		p.Released = true
	case "running":
		p.Running = true
	case "switched":
		var sec int64
		_, err = fmt.Sscan(value, &sec)
		p.Switched = time.Unix(sec, 0)
	case "count":
		p.Connections, err = strconv.Atoi(value)
	case "waits":
		p.Waits = value
	default:
		err = errors.New("not understood")
	}
	return err
}

// listen takes a local address of /proc/net/tcp or tcp6.
func (f *found) listen(value string) error {
	_, hex, _ := strings.Cut(value, ":")
	port, err := strconv.ParseUint(hex, 16, 16)
	if err != nil {
		return err
	}
	f.ports[uint16(port)] = true
	return nil
}

// reachedAt returns the host's own address of an SSH connection, from
// $SSH_CONNECTION: the client's address and port, then the host's. It is zero
// when there is none: sshd says UNKNOWN where it was not reached by TCP.
func reachedAt(connection string) netip.Addr {
	fields := strings.Fields(connection)
	if len(fields) != 4 {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(fields[2])
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// portsOf returns all ports that an app has on a host, as a server of it and
// as its load balancer, sorted.
func portsOf(p Ports, members []proxy.Member) []uint16 {
	ports := slices.Concat([]uint16{p.Stable}, p.Blue, p.Green)
	for _, m := range members {
		ports = append(ports, m.Stable.Port())
	}
	slices.Sort(ports)
	return slices.DeleteFunc(slices.Compact(ports), func(port uint16) bool { return port == 0 })
}

// finish reads the files that were collected.
func (f *found) finish() (Observation, error) {
	o := f.o
	for port := range f.ports {
		o.Facts.Listening = append(o.Facts.Listening, port)
	}
	slices.Sort(o.Facts.Listening)
	if f.state != nil {
		o.State = &State{}
		if err := json.Unmarshal(f.state, o.State); err != nil {
			return Observation{}, fmt.Errorf("state.json is damaged: %w", err)
		}
		if o.State.Schema > SchemaVersion {
			return Observation{}, fmt.Errorf("state.json has schema %d, written by a newer teal; use that one", o.State.Schema)
		}
	}
	if o.Holder != nil && len(f.owner) > 0 {
		if err := json.Unmarshal(f.owner, o.Holder); err != nil {
			return Observation{}, fmt.Errorf("owner.json is damaged: %w", err)
		}
	}
	for _, data := range f.others {
		var other struct {
			App     string
			Ports   Ports
			Members []proxy.Member
		}
		if err := json.Unmarshal(data, &other); err != nil {
			return Observation{}, fmt.Errorf("state.json of another app is damaged: %w", err)
		}
		o.Facts.AppPorts[other.App] = portsOf(other.Ports, other.Members)
	}
	for _, p := range f.pending {
		if !p.Running {
			p.Connections = -1
		}
		o.Pending = append(o.Pending, *p)
	}
	return o, nil
}
