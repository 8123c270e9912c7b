package wire

import "github.com/teal-deploy/teal/plugins"

type (
	runtime = plugins.Runtime
	restart = plugins.Restarter
	policy  = plugins.RestartPolicySetter
	logs    = plugins.LogStreamer
	local   = plugins.LocalRemover
)

// Runtime returns the plugin as a runtime that has exactly the optional
// interfaces that the plugin's runtime has, so that an assertion tells the
// truth. Go cannot add methods to a value, hence a type for each combination.
func (c *Client) Runtime() plugins.Runtime {
	set := 0
	for i, has := range []bool{c.caps.GetRestart(), c.caps.GetSetRestartPolicy(), c.caps.GetLogs()} {
		if has {
			set |= 1 << i
		}
	}
	if c.caps.GetLocalCommands() {
		return c.withLocal()[set]
	}
	return c.withoutLocal()[set]
}

// withoutLocal is indexed by restart, policy and logs: 1, 2 and 4.
func (c *Client) withoutLocal() [8]plugins.Runtime {
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
func (c *Client) withLocal() [8]plugins.Runtime {
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
		c,
	}
}
