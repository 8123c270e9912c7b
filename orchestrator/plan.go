package orchestrator

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A Plan is what a deployment does, decided before anything is touched: the
// plan that is printed is the value that is carried out.
type Plan struct {
	Release string // id of the release to be
	Version string
	Commit  string
	Digest  string
	Hosts   []HostPlan

	Balancers []BalancerPlan // none where each host has its own proxy
}

// A HostPlan is what a deployment does on one host.
type HostPlan struct {
	Host    inventory.Host
	Err     error           // why nothing can be done there
	Reasons []string        // why a release is needed; empty: the host is up to date
	Repairs []Repair        // what an earlier run left and is put right first
	From    *record.Release // what serves now; nil: nothing
	To      record.Release  // the release to be, with its slot
	Ports   record.Ports
	Bind    netip.Addr      // where the slots are published
	First   bool            // the host has never run the app
	Instant bool            // To runs already: a return within the drain
	Waits   *record.Pending // the teardown that must free the slot before
	view    HostView
}

// Changes reports whether the plan does anything on the host.
func (p *HostPlan) Changes() bool {
	return p.Err == nil && (len(p.Reasons) > 0 || len(p.Repairs) > 0)
}

// Deploys reports whether the host gets a new release.
func (p *HostPlan) Deploys() bool { return p.Err == nil && len(p.Reasons) > 0 }

// Changes reports whether the plan does anything anywhere.
func (p *Plan) Changes() bool {
	return slices.ContainsFunc(p.Hosts, func(h HostPlan) bool { return h.Changes() }) ||
		slices.ContainsFunc(p.Balancers, func(b BalancerPlan) bool { return len(b.Reasons) > 0 })
}

// warnings say what works less well on the host than it should.
func (p *HostPlan) warnings() []string {
	return slices.Concat(p.view.Runtime.Warnings, p.view.Warnings)
}

// A Repair is something that an earlier run left unfinished.
type Repair struct {
	Text      string             // for people
	Container *plugins.Container // to be removed
	Cancel    *record.Pending    // a teardown whose switch never happened
	Settle    *record.Release    // a release whose switch did happen: write it down
	Forget    bool               // a release whose switch never happened: strike it out
	Route     *proxy.Share       // what the proxies are to do with the host's requests
}

// wants is what a host shall run: the release to be, but for slot and ports.
type wants struct {
	release record.Release
	force   string // a reason to deploy even when nothing differs
}

// NewPlan decides what to do on every host to have it run what want says for
// it. It is pure: it only looks at the state.
func NewPlan(want map[string]wants, state State) (*Plan, error) {
	if len(state.Hosts) == 0 {
		return nil, ErrNoHosts
	}
	p := &Plan{}
	for _, v := range state.Hosts {
		w := want[v.Host.Name]
		p.Release, p.Version, p.Commit = w.release.ID, w.release.Version, w.release.Commit
		if w.release.Image.Digest != "" {
			p.Digest = w.release.Image.Digest
		}
		p.Hosts = append(p.Hosts, planHost(v, w))
	}
	return p, p.planBalancers(state)
}

func planHost(v HostView, w wants) HostPlan {
	p := HostPlan{Host: v.Host, To: w.release, view: v}
	if v.Err != nil {
		p.Err = v.Err
		return p
	}
	if p.Err = trustworthy(v); p.Err != nil {
		return p
	}
	if v.Record.State == nil && len(v.Containers) > 0 {
		p.Err = fmt.Errorf("%s runs and the host's record of the app is gone: it cannot be told what serves; "+
			"bring the record back, or remove the containers by hand", count(len(v.Containers), "container"))
		return p
	}
	p.From = v.serving()
	p.Repairs = repairs(v, p.From)
	p.To.Slot = freeSlot(v, p.From)
	p.Waits = v.pending(p.To.Slot)
	if s := v.Record.State; s != nil {
		p.Ports = s.Ports
	}
	p.First = v.Record.State == nil
	p.Reasons = reasons(v, p.From, w)
	p.Err = p.locate(w.release.App)
	return p
}

// locate finds the address and the ports of the host's slots.
func (p *HostPlan) locate(app spec.App) error {
	if app.Container.Port == 0 {
		return nil
	}
	var err error
	if p.Bind, err = bindAddress(p.view); err != nil {
		return err
	}
	p.Ports, err = choosePorts(app.Name, p.Ports, app.Container.Replicas, p.view.Record.Facts)
	return err
}

// address is where a replica of the release to be is published.
func (p *HostPlan) address(replica int) netip.AddrPort {
	return netip.AddrPortFrom(p.Bind, p.Ports.Of(p.To.Slot)[replica])
}

// place says in words which containers the release to be has, and where.
func (p *HostPlan) place() string {
	app := p.To.App
	text := "container " + containerName(p.To, 0)
	if n := app.Container.Replicas; n > 1 {
		text = fmt.Sprintf("%d containers %s …", n, containerName(p.To, 0))
	}
	if app.Container.Port > 0 {
		text += fmt.Sprintf(" in %s on %s", p.To.Slot, p.address(0))
	}
	return text
}

// trustworthy refuses to decide on a host whose proxy serves something other
// than what is on disk, or nothing at all.
func trustworthy(v HostView) error {
	o := v.Proxy
	if !o.Prepared || o.Disk == o.Live {
		return nil
	}
	why := o.Problem
	if why == "" {
		why = fmt.Sprintf("its configuration routes to %s, but it answers from %s", o.Disk, o.Live)
	}
	return &plugins.Error{Op: "ask the proxy", Host: v.Host.Name, Kind: plugins.Unavailable, Err: errors.New(why)}
}

// freeSlot is the one that nothing is routed to.
func freeSlot(v HostView, from *record.Release) proxy.Slot {
	if slot, whole := v.Proxy.Disk.Slot(); v.Proxy.Prepared && !v.Proxy.Mixed && whole {
		return slot.Other()
	}
	if from != nil {
		return from.Slot.Other()
	}
	return proxy.Green
}

// repairs lists what an earlier run left: a switch that it did not write
// down, a teardown armed for a switch that never came, containers that belong
// to no release.
func repairs(v HostView, serving *record.Release) []Repair {
	var found []Repair
	if v.Proxy.Prepared && v.Proxy.Mixed {
		to := proxy.Off
		if serving != nil {
			to = serving.Slot.All()
		}
		found = append(found, Repair{Text: "direct all requests to " + to.String() + ", as before the switch that a run left half done", Route: &to})
	}
	condemned := map[string]bool{}
	for i, p := range v.Record.Pending {
		if serving != nil && p.Release == serving.ID {
			found = append(found, Repair{
				Text:   "cancel the teardown of " + p.Release + ", which still serves",
				Cancel: &v.Record.Pending[i],
			})
			continue
		}
		condemned[p.Release] = true
	}
	if s := v.Record.State; s != nil && s.Switching != nil {
		if serving != nil && serving.ID == s.Switching.ID {
			found = append(found, Repair{Text: "write down that " + serving.ID + " serves", Settle: s.Switching})
		} else {
			found = append(found, Repair{Text: "strike out " + s.Switching.ID + ", which never served", Forget: true})
		}
	}
	for i, c := range v.Containers {
		release := c.Labels[LabelRelease]
		if condemned[release] || (serving != nil && release == serving.ID) {
			continue
		}
		found = append(found, Repair{
			Text:      fmt.Sprintf("remove the left-over container %s", c.Name),
			Container: &v.Containers[i],
		})
	}
	return found
}

// reasons says why the host needs a new release; none: it is up to date.
func reasons(v HostView, from *record.Release, w wants) []string {
	if from == nil {
		return []string{"first deployment"}
	}
	var why []string
	if w.force != "" {
		why = append(why, w.force)
	}
	to := w.release
	if from.Image.Digest != to.Image.Digest {
		why = append(why, fmt.Sprintf("image %s → %s", short(from.Image.Digest), short(to.Image.Digest)))
	}
	if from.Commit != to.Commit {
		why = append(why, fmt.Sprintf("commit %s → %s", short(from.Commit), short(to.Commit)))
	}
	if from.Version != to.Version {
		why = append(why, fmt.Sprintf("version %s → %s", from.Version, to.Version))
	}
	why = append(why, differences(from.App, to.App)...)
	if from.Secrets != to.Secrets {
		why = append(why, "secrets changed")
	}
	if n := len(v.running(from.ID)); n < from.App.Container.Replicas {
		why = append(why, fmt.Sprintf("%d of %d containers run", n, from.App.Container.Replicas))
	}
	return why
}

// differences names the parts of the app file that matter to a running
// container and differ.
func differences(from, to spec.App) []string {
	var why []string
	for _, part := range []struct {
		name string
		a, b any
	}{
		{"runtime", from.Plugins[from.Runtime].Settings, to.Plugins[to.Runtime].Settings},
		{"code", from.Code, to.Code},
		{"container", from.Container, to.Container},
		{"install", from.Install, to.Install},
		{"proxy", from.Proxy, to.Proxy},
	} {
		if !reflect.DeepEqual(part.a, part.b) && !equalJSON(part.a, part.b) {
			why = append(why, part.name+" settings changed")
		}
	}
	return why
}

// short cuts a commit or a digest to what people compare.
func short(id string) string {
	if id == "" {
		return "none"
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// String is the plan for people: what each host would do, and why.
func (p *Plan) String() string {
	var b strings.Builder
	if p.Version != "" {
		fmt.Fprintf(&b, "release %s", p.Version)
		if p.Commit != "" && p.Commit != p.Version {
			fmt.Fprintf(&b, ", commit %s", short(p.Commit))
		}
		if p.Digest != "" {
			fmt.Fprintf(&b, ", image %s", short(p.Digest))
		}
		b.WriteString("\n")
	}
	// What is the same on several hosts is said once.
	var texts []string
	names := map[string][]string{}
	for i := range p.Hosts {
		var host strings.Builder
		p.Hosts[i].print(&host)
		text := host.String()
		if names[text] == nil {
			texts = append(texts, text)
		}
		names[text] = append(names[text], p.Hosts[i].Host.Name)
	}
	for _, text := range texts {
		fmt.Fprintf(&b, "\n%s:%s", strings.Join(names[text], ", "), text)
	}
	for _, l := range p.Balancers {
		if len(l.Reasons) == 0 && len(l.view.Warnings) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", l.Host.Name)
		for _, w := range l.view.Warnings {
			fmt.Fprintf(&b, "  warning   %s\n", w)
		}
		if len(l.Reasons) > 0 {
			fmt.Fprintf(&b, "  configure load balancer, written and reloaded once, because %s\n", joinReasons(l.Reasons))
		}
	}
	return b.String()
}

func (p *HostPlan) print(b *strings.Builder) {
	switch {
	case p.Err != nil:
		fmt.Fprintf(b, " cannot be deployed to: %s\n", strings.TrimPrefix(p.Err.Error(), p.Host.Name+": "))
		return
	case !p.Changes():
		fmt.Fprintf(b, " up to date, %s serves from %s\n", p.From.Version, p.From.Slot)
		return
	}
	b.WriteString("\n")
	for _, r := range p.Repairs {
		fmt.Fprintf(b, "  repair    %s\n", r.Text)
	}
	if !p.Deploys() {
		return
	}
	fmt.Fprintf(b, "  because   %s\n", strings.Join(p.Reasons, ", "))
	for _, w := range p.warnings() {
		fmt.Fprintf(b, "  warning   %s\n", w)
	}
	for _, line := range p.steps() {
		fmt.Fprintf(b, "  %-9s %s\n", line[0], line[1])
	}
}

// steps is a line for each of the seven steps.
func (p *HostPlan) steps() [][2]string {
	app := p.To.App
	var lines [][2]string
	if image := app.Image.Name; image != "" {
		if p.To.Image.Digest != "" {
			image += " at " + short(p.To.Image.Digest)
		}
		how := fmt.Sprintf("pull %s (%s)", image, app.Image.Pull)
		if app.Image.Pull == pullUpload {
			how = fmt.Sprintf("upload what the host lacks of %s", image)
		}
		lines = append(lines, [2]string{string(StepImage), how})
	}
	if c := app.Code; c != nil {
		lines = append(lines, [2]string{string(StepCode), fmt.Sprintf("%s at %s", c.Repository, short(p.To.Commit))})
	}
	create := p.place()
	if w := p.Waits; w != nil {
		_, latest := leaves(w)
		create += fmt.Sprintf(", once %s has left (%s, at the latest %s)", w.Release,
			count(w.Connections, "connection"), latest.Format(time.TimeOnly))
	}
	lines = append(lines, [2]string{string(StepCreate), create})
	if n := len(app.Install.Run); n > 0 {
		lines = append(lines, [2]string{string(StepInstall), count(n, "command")})
	}
	lines = append(lines, [2]string{string(StepTest), fmt.Sprintf("%s, %d in a row, for %s, within %s",
		count(len(app.Test.Checks), "check"), app.Test.Successes, app.Test.Stable, app.Test.Within)})
	if app.Proxy != nil {
		how := fmt.Sprintf("%s: upstream %s to %s", app.Proxy.Type, app.Proxy.Upstream, p.To.Slot)
		if app.Proxy.Hosts != "" {
			how = fmt.Sprintf("%s on the load balancers: %s of upstream %s to %s", app.Proxy.Type, p.Host.Name, app.Proxy.Upstream, p.To.Slot)
		} else if p.First || !p.view.Proxy.Prepared || p.view.Proxy.Outdated {
			how += ", after its configuration is written and reloaded once"
		}
		if first := p.shares(); first != "" {
			how += ", " + first
		}
		lines = append(lines, [2]string{string(StepSwitch), how})
	}
	if p.From != nil {
		lines = append(lines, [2]string{string(StepTeardown), fmt.Sprintf("remove %s of %s from %s, %s after the switch, at the latest after %s",
			p.From.Version, p.From.At.Local().Format(time.DateTime), p.From.Slot, app.Drain.Delay, app.Drain.Max)})
	}
	return lines
}

// shares says in words which parts of the requests green gets first; "" when it
// gets all at once.
func (p *HostPlan) shares() string {
	rollout := p.To.App.Rollout
	if p.From == nil || len(rollout.Canary) == 0 {
		return ""
	}
	var shares []string
	for _, percent := range rollout.Canary {
		shares = append(shares, fmt.Sprintf("%d %%", percent))
	}
	return fmt.Sprintf("%s of the requests first, each for %s", strings.Join(shares, ", "), rollout.Watch)
}

func count(n int, what string) string {
	switch {
	case n < 0:
		return "an unknown number of " + what + "s"
	case n == 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
