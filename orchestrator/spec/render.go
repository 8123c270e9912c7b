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
	r.test(app.Test)
	r.proxy(app.Proxy)
	r.table("drain")
	r.put("delay", short(app.Drain.Delay))
	r.put("max", short(app.Drain.Max))
	r.table("rollout")
	r.put("strategy", app.Rollout.Strategy)
	r.always("max_failed", app.Rollout.MaxFailed.value())
	r.always("max_unreachable", app.Rollout.MaxUnreachable.value())
	r.put("on_failure", app.Rollout.OnFailure)
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
	switch v := value.(type) {
	case string:
		if v == "" {
			return
		}
	case bool:
		if !v {
			return
		}
	case int:
		if v == 0 {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
	case map[string]any:
		if len(v) == 0 {
			return
		}
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
	r.table("image")
	r.put("name", img.Name)
	r.put("pull", img.Pull)
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
	r.put("replicas", c.Replicas)
	r.put("command", c.Command)
	env := map[string]any{}
	for name, value := range c.Env {
		env[name] = value
	}
	r.put("env", env)
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

func (r *renderer) test(t Test) {
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
	r.always("checks", checks)
}

func (r *renderer) proxy(p *Proxy) {
	if p == nil {
		return
	}
	r.table("proxy")
	r.put("type", p.Type)
	r.put("upstream", p.Upstream)
	if v := p.Verify; v != nil {
		r.always("verify", filled("http", v.HTTP, "status", v.Status, "body", v.Body))
	}
	if s := p.Site; s != nil {
		var addresses []any
		for _, at := range s.Listen {
			if at.Addr() == netip.IPv4Unspecified() {
				addresses = append(addresses, int(at.Port()))
				continue
			}
			addresses = append(addresses, at.String())
		}
		r.always("site", filled("listen", addresses, "names", s.Names))
	}
}

func (r *renderer) plugins(plugins map[string]Plugin) {
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		r.table(tomlfile.Join("plugins", name))
		p := plugins[name]
		r.put("path", p.Path)
		r.put("sha256", p.SHA256)
		r.put("settings", p.Settings)
	}
}

// filled makes a table of names and values without those that say nothing.
func filled(pairs ...any) map[string]any {
	out := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		switch v := pairs[i+1].(type) {
		case string:
			if v == "" {
				continue
			}
		case bool:
			if !v {
				continue
			}
		case int:
			if v == 0 {
				continue
			}
		case []string:
			if len(v) == 0 {
				continue
			}
		case []int:
			if len(v) == 0 {
				continue
			}
		case map[string]string:
			if len(v) == 0 {
				continue
			}
		}
		name, _ := pairs[i].(string)
		out[name] = pairs[i+1]
	}
	return out
}

func (s Secret) value() map[string]any {
	return filled("env", s.Env, "file", s.File, "command", s.Command)
}

func (c Check) value() map[string]any {
	return filled("http", c.HTTP, "status", c.Status, "body", c.Body, "host", c.Host, "headers", c.Headers,
		"tcp", int(c.TCP), "exec", c.Exec, "engine", c.Engine)
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
