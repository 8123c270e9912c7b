package wire

import "github.com/teal-deploy/teal/plugins"

type (
	runtime = plugins.Runtime
	restart = plugins.Restarter
	policy  = plugins.RestartPolicySetter
	logs    = plugins.LogStreamer
	local   = plugins.LocalRemover
)

// Every is a runtime with every optional interface that is used during a
// deployment.
type Every interface {
	plugins.Runtime
	plugins.Restarter
	plugins.RestartPolicySetter
	plugins.LogStreamer
	plugins.LocalRemover
}

// Runtime returns the plugin as a runtime that has exactly the optional
// interfaces that the plugin's runtime has.
func (c *Client) Runtime() plugins.Runtime { return Limit(c, c.caps) }

// Capabilities returns what the plugin said that it can do.
func (c *Client) Capabilities() *Capabilities { return c.caps }

// Names are those of the optional interfaces, as the protocol of package
// execruntime has them, and "settings".
func (x *Capabilities) Names() []string {
	var names []string
	for _, ability := range []struct {
		name string
		has  bool
	}{
		{"restart", x.GetRestart()},
		{"restart-policy", x.GetSetRestartPolicy()},
		{"logs", x.GetLogs()},
		{"local-commands", x.GetLocalCommands()},
		{"settings", x.GetSettings()},
	} {
		if ability.has {
			names = append(names, ability.name)
		}
	}
	return names
}

// Abilities says which optional interfaces rt has.
func Abilities(rt plugins.Runtime) *Capabilities {
	caps := &Capabilities{}
	_, caps.Restart = rt.(plugins.Restarter)
	_, caps.SetRestartPolicy = rt.(plugins.RestartPolicySetter)
	_, caps.Logs = rt.(plugins.LogStreamer)
	_, caps.LocalCommands = rt.(plugins.LocalRemover)
	return caps
}

// Limit returns c with the optional interfaces that caps name and no others, so
// that an assertion tells the truth. Go cannot add methods to a value, hence a
// type for each combination.
func Limit(c Every, caps *Capabilities) plugins.Runtime {
	set := 0
	for i, has := range []bool{caps.GetRestart(), caps.GetSetRestartPolicy(), caps.GetLogs()} {
		if has {
			set |= 1 << i
		}
	}
	if caps.GetLocalCommands() {
		return withLocal(c)[set]
	}
	return withoutLocal(c)[set]
}

// withoutLocal is indexed by restart, policy and logs: 1, 2 and 4.
func withoutLocal(c Every) [8]plugins.Runtime {
	return [8]plugins.Runtime{
		struct{ runtime }{c},
		struct {
			runtime
			restart
		}{c, c},
		struct {
			runtime
			policy
		}{c, c},
		struct {
			runtime
			restart
			policy
		}{c, c, c},
		struct {
			runtime
			logs
		}{c, c},
		struct {
			runtime
			restart
			logs
		}{c, c, c},
		struct {
			runtime
			policy
			logs
		}{c, c, c},
		struct {
			runtime
			restart
			policy
			logs
		}{c, c, c, c},
	}
}

// withLocal is withoutLocal and LocalRemover.
func withLocal(c Every) [8]plugins.Runtime {
	return [8]plugins.Runtime{
		struct {
			runtime
			local
		}{c, c},
		struct {
			runtime
			restart
			local
		}{c, c, c},
		struct {
			runtime
			policy
			local
		}{c, c, c},
		struct {
			runtime
			restart
			policy
			local
		}{c, c, c, c},
		struct {
			runtime
			logs
			local
		}{c, c, c},
		struct {
			runtime
			restart
			logs
			local
		}{c, c, c, c},
		struct {
			runtime
			policy
			logs
			local
		}{c, c, c, c},
		struct{ Every }{c},
	}
}
