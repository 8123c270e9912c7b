package spec

import "time"

// defaults returns an app of which nothing is said.
func defaults() App {
	return App{
		Hosts:     "all",
		Runtime:   "docker",
		Image:     Image{Pull: "always", PullParallel: 16},
		Container: Container{Replicas: 1, StopGrace: 10 * time.Second},
		Install:   Install{Timeout: 10 * time.Minute},
		Test: Test{
			Within:    time.Minute,
			Interval:  time.Second,
			Timeout:   5 * time.Second,
			Successes: 2,
			Stable:    3 * time.Second,
		},
		Drain:   Drain{Delay: 10 * time.Second, Max: 10 * time.Minute},
		Rollout: Rollout{Strategy: "together", OnFailure: "rollback"},
		Keep:    Keep{Releases: 3},
	}
}

// complete fills in the defaults that depend on what is said elsewhere. An
// explicit empty value is not a default: it is left for the checks.
func complete(app *App, c *checker) {
	if app.Code != nil && !c.doc.Has("code.via") {
		app.Code.Via = "host"
	}
	if app.Proxy != nil && !c.doc.Has("proxy.upstream") {
		app.Proxy.Upstream = app.Name
	}
	if v := app.verify(); v != nil && !c.doc.Has("proxy.verify.status") {
		v.Status = []int{200}
	}
	if !c.doc.Has("drain.max") {
		app.Drain.Max = max(app.Drain.Max, app.Drain.Delay)
	}
	// Something must be asked before a green that listens gets requests. A
	// worker passes by running for test.stable.
	if app.Container.Port != 0 && !c.doc.Has("test.checks") {
		app.Test.Checks = []Check{{TCP: app.Container.Port}}
	}
	if c.doc.Has("container.port") && !c.doc.Has("container.protocol") {
		app.Container.Protocol = protocolHTTP
	}
	if len(app.Rollout.Canary) > 0 && !c.doc.Has("rollout.watch") {
		app.Rollout.Watch = 10 * time.Second
	}
}

func (a *App) verify() *Verify {
	if a.Proxy == nil {
		return nil
	}
	return a.Proxy.Verify
}

// refused are the keys of which nothing is done yet, with what to do instead.
func refused() map[string]string {
	const age = "use env, file or command"
	return map[string]string{
		"rollout.batches":         "leave it out: all hosts switch together",
		"rollout.pause":           "leave it out: all hosts switch together",
		"image.password.age":      age,
		"container.secrets.*.age": age,
	}
}

// typeHints are better advice for some values of a wrong type.
func typeHints() map[string]string {
	const secret = `a secret does not stand in the file: write { env = "NAME" }, { file = "path" } or { command = ["…"] }`
	const argv = `write the program and its arguments one by one, as ["op", "read", "op://shop/db"]`
	return map[string]string{
		"image.password":              secret,
		"image.password.command":      argv,
		"container.secrets.*":         secret,
		"container.secrets.*.command": argv,
		"container.volumes":           `write ["name:/path"]`,
		"container.command":           `write the program and its arguments one by one, as ["bin/web", "--port", "8080"]`,
		"rollout.canary":              `write the shares of green, as ["5%", "25%"]`,
		"test.checks[].exec":          `write the program and its arguments one by one, as ["bin/check", "--fast"]`,
	}
}
