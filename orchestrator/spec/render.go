package spec

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// Render returns an app as an app file, with the defaults written out. It
// shows where secrets come from and none of their values. Text is printed as
// the app has it, also a ${name} that is not replaced yet.
func Render(app App) string {
	r := &renderer{}
	r.put("app", app.Name)
	r.put("hosts", app.Hosts)
	r.put("runtime", app.Runtime)
	r.image(app.Image)
	r.code(app.Code)
	r.container(app.Container)
	r.table("install")
	r.put("run", app.Install.Run)
	r.put("once", app.Install.Once)
	r.put("timeout", short(app.Install.Timeout))
	r.put("restart", app.Install.Restart)
	r.test(app.Test, app.Container.Port != 0)
	r.proxy(app.Proxy)
	r.table("drain")
	r.put("delay", short(app.Drain.Delay))
	r.put("max", short(app.Drain.Max))
	r.rollout(app.Rollout)
	r.table("keep")
	r.put("releases", app.Keep.Releases)
	r.table("hooks")
	r.put("before_deploy", app.Hooks.BeforeDeploy)
	r.put("after_switch", app.Hooks.AfterSwitch)
	r.put("after_deploy", app.Hooks.AfterDeploy)
	r.put("on_failure", app.Hooks.OnFailure)
	r.plugins(app.Plugins)
	return r.b.String()
}

// A renderer writes keys and values. A table appears with its first key.
type renderer struct {
	b      strings.Builder
	header string
}

func (r *renderer) table(name string) { r.header = name }

// put writes a key unless its value says nothing.
func (r *renderer) put(key string, value any) {
	if saysNothing(value) {
		return
	}
	r.always(key, value)
}

func (r *renderer) always(key string, value any) {
	if r.header != "" {
		fmt.Fprintf(&r.b, "\n[%s]\n", r.header)
		r.header = ""
	}
	fmt.Fprintf(&r.b, "%s = %s\n", tomlfile.Join("", key), tomlfile.Format(value))
}

func (r *renderer) image(img Image) {
	if img.Name == "" {
		return
	}
	r.table("image")
	r.put("name", img.Name)
	r.put("pull", img.Pull)
	r.put("archive", img.Archive)
	r.put("pull_parallel", img.PullParallel)
	r.put("username", img.Username)
	if img.Password != nil {
		r.always("password", img.Password.value())
	}
}

func (r *renderer) code(c *Code) {
	if c == nil {
		return
	}
	r.table("code")
	r.put("repository", c.Repository)
	r.put("ref", c.Ref)
	r.put("path", c.Path)
	r.put("subdir", c.Subdir)
	r.put("submodules", c.Submodules)
	r.put("via", c.Via)
	r.put("identity", c.Identity)
	r.put("signed", c.Signed)
}

func (r *renderer) container(c Container) {
	r.table("container")
	r.put("port", int(c.Port))
	r.put("protocol", c.Protocol)
	r.put("replicas", c.Replicas)
	r.put("command", c.Command)
	r.put("env", c.Env)
	secrets := map[string]any{}
	for name, s := range c.Secrets {
		secrets[name] = s.value()
	}
	r.put("secrets", secrets)
	var volumes []string
	for _, v := range c.Volumes {
		volumes = append(volumes, v.String())
	}
	r.put("volumes", volumes)
	if c.Memory > 0 {
		r.put("memory", sizeText(c.Memory))
	}
	if c.CPUs > 0 {
		r.put("cpus", c.CPUs)
	}
	r.put("stop_grace", short(c.StopGrace))
}

// test writes the tests. With a port an empty list of checks says something:
// that the port is not asked.
func (r *renderer) test(t Test, port bool) {
	r.table("test")
	r.put("within", short(t.Within))
	r.put("interval", short(t.Interval))
	r.put("timeout", short(t.Timeout))
	r.put("successes", t.Successes)
	r.put("stable", short(t.Stable))
	checks := make([]any, len(t.Checks))
	for i, c := range t.Checks {
		checks[i] = c.value()
	}
	if port || len(checks) > 0 {
		r.always("checks", checks)
	}
}

func (r *renderer) proxy(p *Proxy) {
	if p == nil {
		return
	}
	r.table("proxy")
	r.put("type", p.Type)
	r.put("hosts", p.Hosts)
	r.put("address", p.Address)
	r.put("upstream", p.Upstream)
	if p.Verify != nil {
		r.always("verify", p.Verify.value())
	}
	if p.Site != nil {
		r.always("site", p.Site.value())
	}
}

// rollout writes the order of the switches. Without shares the list is written
// where something is said about a canary, which needs it.
func (r *renderer) rollout(o Rollout) {
	r.table("rollout")
	r.put("strategy", o.Strategy)
	r.always("max_failed", o.MaxFailed.value())
	r.always("max_unreachable", o.MaxUnreachable.value())
	r.put("on_failure", o.OnFailure)
	shares := make([]string, len(o.Canary))
	for i, percent := range o.Canary {
		shares[i] = strconv.Itoa(percent) + "%"
	}
	if len(shares) > 0 || o.Watch > 0 || len(o.Check) > 0 || o.Sticky != "" {
		r.always("canary", shares)
	}
	if o.Watch > 0 {
		r.put("watch", short(o.Watch))
	}
	r.put("check", o.Check)
	r.put("sticky", o.Sticky)
}

func (r *renderer) plugins(plugins map[string]Plugin) {
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		r.table(tomlfile.Join("plugins", name))
		p := plugins[name]
		r.put("path", p.Path)
		r.put("sha256", p.SHA256)
		r.put("protocol", p.Protocol)
		if p.Timeout > 0 {
			r.put("timeout", short(p.Timeout))
		}
		r.put("settings", p.Settings)
	}
}

// filled returns a table without the keys that say nothing.
func filled(pairs ...tomlfile.Pair) []tomlfile.Pair {
	return slices.DeleteFunc(pairs, func(p tomlfile.Pair) bool { return saysNothing(p.Value) })
}

func saysNothing(value any) bool {
	switch v := value.(type) {
	case string:
		return v == ""
	case bool:
		return !v
	case int:
		return v == 0
	case []string:
		return len(v) == 0
	case []int:
		return len(v) == 0
	case map[string]string:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func (s Secret) value() []tomlfile.Pair {
	return filled(
		tomlfile.Pair{Name: "env", Value: s.Env},
		tomlfile.Pair{Name: "file", Value: s.File},
		tomlfile.Pair{Name: "command", Value: s.Command},
	)
}

func (c Check) value() []tomlfile.Pair {
	return filled(
		tomlfile.Pair{Name: "http", Value: c.HTTP},
		tomlfile.Pair{Name: "tcp", Value: int(c.TCP)},
		tomlfile.Pair{Name: "exec", Value: c.Exec},
		tomlfile.Pair{Name: "engine", Value: c.Engine},
		tomlfile.Pair{Name: "status", Value: c.Status},
		tomlfile.Pair{Name: "body", Value: c.Body},
		tomlfile.Pair{Name: "host", Value: c.Host},
		tomlfile.Pair{Name: "headers", Value: c.Headers},
	)
}

func (v Verify) value() []tomlfile.Pair {
	return filled(
		tomlfile.Pair{Name: "http", Value: v.HTTP},
		tomlfile.Pair{Name: "status", Value: v.Status},
		tomlfile.Pair{Name: "body", Value: v.Body},
	)
}

func (s Site) value() []tomlfile.Pair {
	addresses := make([]any, len(s.Listen))
	for i, at := range s.Listen {
		addresses[i] = at.String()
		if at.Addr() == netip.IPv4Unspecified() {
			addresses[i] = int(at.Port())
		}
	}
	return filled(tomlfile.Pair{Name: "listen", Value: addresses}, tomlfile.Pair{Name: "names", Value: s.Names})
}

func (l Limit) value() any {
	if l.Percent {
		return strconv.Itoa(l.Count) + "%"
	}
	return l.Count
}

// String returns the volume as an app file has it.
func (v Volume) String() string {
	s := v.Source + ":" + v.Target
	if v.ReadOnly {
		s += ":ro"
	}
	return s
}

// sizeText returns bytes in the largest unit that fits without a rest.
func sizeText(n int64) string {
	units := []string{"b", "k", "m", "g", "t"}
	i := 0
	for i < len(units)-1 && n%1024 == 0 {
		n, i = n/1024, i+1
	}
	return strconv.FormatInt(n, 10) + units[i]
}
