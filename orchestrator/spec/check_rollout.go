package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

const (
	canaryKey  = "rollout.canary"
	canaryFlag = "--canary"
	noCanary   = "none" // the flag's value that says so
)

// parseCanary reads Options.Canary. Without a canary the list is empty and not
// nil.
func parseCanary(texts []string) ([]int, error) {
	if slices.Equal(texts, []string{noCanary}) {
		return []int{}, nil
	}
	list := make([]any, len(texts))
	for i, text := range texts {
		list[i] = text
	}
	doc := tomlfile.Values(map[string]any{"rollout": map[string]any{"canary": list}}, func(string) string { return canaryFlag })
	c := &checker{doc: doc, app: &App{}, skip: map[string]bool{}}
	c.problems = doc.Decode(c.app, tomlfile.Rules{Convert: converters()})
	for _, p := range c.problems {
		c.skip[p.Key] = true
	}
	c.shares()
	return c.app.Rollout.Canary, c.problems.Err()
}

func (c *checker) rollout() {
	r := c.app.Rollout
	c.text("rollout.strategy", r.Strategy, oneOf([]string{"together"}, "batches"))
	c.text("rollout.on_failure", r.OnFailure, oneOf([]string{"rollback", "stop"}))
	if !c.canary {
		c.shares()
	}
	if c.doc.Has("rollout.watch") {
		c.positive("rollout.watch", r.Watch)
	}
	c.texts("rollout.check", r.Check, notEmpty)
	c.text("rollout.sticky", r.Sticky, sticky)
	c.needs()
	c.stickyFits()
}

// shares checks the shares of the canary themselves.
func (c *checker) shares() {
	const most = 10
	list := c.app.Rollout.Canary
	if len(list) > most {
		c.fail(canaryKey, "leave some out", "has %d shares, and may have %d", len(list), most)
	}
	for i := 1; i < len(list); i++ {
		former, at := tomlfile.Index(canaryKey, i-1), tomlfile.Index(canaryKey, i)
		if c.known(former, at) && list[i] <= list[i-1] {
			c.fail(at, "each share is larger than the one before", "%d%% comes after %d%%", list[i], list[i-1])
		}
	}
}

// needs checks that there is a canary for what is said about one, and that the
// app gets requests that it can divide. An empty list of shares is a canary
// that is off: an environment may say so.
func (c *checker) needs() {
	for _, key := range []string{"rollout.watch", "rollout.check", "rollout.sticky"} {
		if c.doc.Has(key) && !c.doc.Has(canaryKey) && !c.canary {
			c.failName(key, `set rollout.canary, as ["5%", "25%"], or leave it out`, "does nothing without rollout.canary")
		}
	}
	if len(c.app.Rollout.Canary) == 0 || c.doc.Has("container.port") || c.doc.Has("proxy") {
		return
	}
	const message, hint = "a canary divides the requests to the app, and a worker gets none", "leave it out, or give the container a port"
	if c.canary {
		c.problems = append(c.problems, tomlfile.Problem{Key: canaryFlag, Message: message, Hint: hint})
		return
	}
	c.failName(canaryKey, hint, message)
}

// stickyFits checks that something in a request tells who the client is.
func (c *checker) stickyFits() {
	const key = "rollout.sticky"
	switch {
	case !c.doc.Has(key):
	case !c.doc.Has("container.port") && !c.doc.Has("proxy"):
		c.failName(key, "leave it out, or give the container a port", "keeps clients on one slot, and a worker has none")
	case c.app.Container.Protocol == protocolTCP && c.known("container.protocol"):
		c.failName(key, "leave it out", "knows clients by what is in their requests, and tcp has no requests")
	}
}

var cookieExpr = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// sticky is the rule for what keeps a client on one slot.
func sticky(s string) error {
	name, cookie := strings.CutPrefix(s, "cookie:")
	switch {
	case s == "address" || cookie && cookieExpr.MatchString(name):
		return nil
	case cookie:
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not a name for a cookie", name), Hint: "letters, digits, '_', '.' and '-'"}
	}
	return &tomlfile.Fault{Message: fmt.Sprintf("%q is not something that keeps clients", s), Hint: `write "address" or "cookie:NAME"`}
}
