package spec

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// A checker looks at an app as a whole and notes everything that is wrong. A
// value that is not known yet, or that was reported already, is left alone.
type checker struct {
	doc      *tomlfile.Document
	app      *App
	skip     map[string]bool // keys that hold no value to be checked
	canary   bool            // the shares of the canary come from the command line
	problems tomlfile.Problems
}

func (c *checker) check() {
	c.run()
	c.image()
	c.code()
	c.container()
	c.install()
	c.test()
	c.proxy()
	c.drain()
	c.rollout()
	c.hooks()
	c.plugins()
}

// fail notes a problem with the value of a key.
func (c *checker) fail(key, hint, format string, args ...any) {
	c.problems = append(c.problems, c.doc.Problem(key, fmt.Sprintf(format, args...), hint))
}

// failName notes a problem with a key itself.
func (c *checker) failName(key, hint, format string, args ...any) {
	c.problems = append(c.problems, c.doc.KeyProblem(key, fmt.Sprintf(format, args...), hint))
}

func (c *checker) failErr(key string, err error) {
	if err != nil {
		c.fail(key, tomlfile.Hint(err), "%s", err.Error())
	}
}

// known reports whether the values of all keys are there to be checked, and
// those of the tables that hold them.
func (c *checker) known(keys ...string) bool {
	if len(c.skip) == 0 {
		return true
	}
	for _, key := range keys {
		for ; key != ""; key = tomlfile.Parent(key) {
			if c.skip[key] || c.skip[c.doc.Name(key)] {
				return false
			}
		}
	}
	return true
}

// sound reports whether nothing is wrong yet with what is below a key.
func (c *checker) sound(key string) bool {
	for name := range c.skip {
		if within(name, []string{key, c.doc.Name(key)}) {
			return false
		}
	}
	return true
}

// text checks a text. Nothing is said about one that is absent.
func (c *checker) text(key, value string, rule func(string) error) {
	if c.known(key) && (value != "" || c.doc.Has(key)) {
		c.failErr(key, rule(value))
	}
}

// texts checks the elements of a list.
func (c *checker) texts(key string, values []string, rule func(string) error) {
	for i, v := range values {
		c.text(tomlfile.Index(key, i), v, rule)
	}
}

// required reports a key that is absent.
func (c *checker) required(key, hint string) {
	if !c.doc.Has(key) && c.known(key) {
		c.fail(key, hint, "is required")
	}
}

// positive checks a duration that must be above 0.
func (c *checker) positive(key string, d time.Duration) {
	if c.known(key) && d <= 0 {
		c.fail(key, "", "must be above 0, and is %s", short(d))
	}
}

// notNegative checks a duration that may be 0.
func (c *checker) notNegative(key string, d time.Duration) {
	if c.known(key) && d < 0 {
		c.fail(key, "", "must not be negative, and is %s", short(d))
	}
}

// short prints a duration without parts that are 0: "10m", not "10m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// What names and values are made of.
var (
	appExpr      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	runtimeExpr  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)
	upstreamExpr = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	sumExpr      = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// matching returns the rule that a text matches an expression.
func matching(expr *regexp.Regexp, what, hint string) func(string) error {
	return func(s string) error {
		if expr.MatchString(s) {
			return nil
		}
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not %s", s, what), Hint: hint}
	}
}

// oneOf returns the rule that a text is one of some words. Those of later say
// what is not done yet.
func oneOf(words []string, later ...string) func(string) error {
	return func(s string) error {
		switch {
		case slices.Contains(words, s):
			return nil
		case slices.Contains(later, s):
			return &tomlfile.Fault{Message: fmt.Sprintf("%q does not work yet", s), Hint: "use " + choice(words)}
		}
		hint := tomlfile.DidYouMean(s, words)
		if hint == "" {
			hint = "use " + choice(words)
		}
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not one of %s", s, strings.Join(words, ", ")), Hint: hint}
	}
}

// choice returns words as "a, b or c".
func choice(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// notEmpty is the rule for words that reach a program as they are.
func notEmpty(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return noNUL(s)
}

// noNUL is the rule for free text: no program can be given a NUL.
func noNUL(s string) error {
	if strings.ContainsRune(s, 0) {
		return errors.New("holds a NUL character")
	}
	return nil
}

// printable is the rule for free text on one line.
func printable(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	if strings.ContainsFunc(s, isControl) {
		return fmt.Errorf("%q holds a control character", s)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// run checks what holds for the whole run.
func (c *checker) run() {
	app := c.app
	c.required("app", "give the app a name, as shop")
	c.text("app", app.Name, matching(appExpr, "a name for an app", "up to 40 of a-z, 0-9 and '-', not beginning with '-'"))
	c.text("hosts", app.Hosts, printable)
	c.text("runtime", app.Runtime, runtimeName)
	if n := app.Keep.Releases; c.known("keep.releases") && (n < 1 || n > 100) {
		c.fail("keep.releases", "the release that serves counts as one", "must be between 1 and 100, and is %d", n)
	}
}

// Builtins returns the names of the runtimes that come with teal. Any other
// one is a plugin, of which the file need say no more than the name.
func Builtins() []string { return []string{"docker", "podman"} }

// runtimeName is the rule for a runtime. Whether there is a plugin of that
// name is for its loader to find out.
func runtimeName(s string) error {
	return matching(runtimeExpr, "a name for a runtime", "a-z, 0-9, '-' and '_', not beginning with '-' or '_'")(s)
}

func (c *checker) install() {
	c.positive("install.timeout", c.app.Install.Timeout)
	c.texts("install.run", c.app.Install.Run, notEmpty)
	c.texts("install.once", c.app.Install.Once, notEmpty)
	if c.app.Install.Restart && len(c.app.Install.Run)+len(c.app.Install.Once) == 0 {
		c.fail("install.restart", "name commands in install.run, or leave it out", "there is nothing to restart after")
	}
}

func (c *checker) drain() {
	d := c.app.Drain
	c.notNegative("drain.delay", d.Delay)
	c.notNegative("drain.max", d.Max)
	if c.known("drain.delay", "drain.max") && d.Delay > d.Max {
		c.fail("drain.max", "raise drain.max or lower drain.delay",
			"%s is below drain.delay, which is %s", short(d.Max), short(d.Delay))
	}
}

func (c *checker) hooks() {
	h := c.app.Hooks
	c.texts("hooks.before_deploy", h.BeforeDeploy, notEmpty)
	c.texts("hooks.after_switch", h.AfterSwitch, notEmpty)
	c.texts("hooks.after_deploy", h.AfterDeploy, notEmpty)
	c.texts("hooks.on_failure", h.OnFailure, notEmpty)
}

func (c *checker) plugins() {
	for _, name := range c.doc.Keys("plugins") {
		key := tomlfile.Join("plugins", name)
		p := c.app.Plugins[name]
		switch {
		case slices.Contains(Builtins(), name):
			c.failName(key, "give the plugin another name", "%s is built in", name)
		default:
			if err := runtimeName(name); err != nil {
				c.failName(key, tomlfile.Hint(err), "%s", err)
			}
		}
		if !c.known(key) {
			continue
		}
		c.text(key+".path", p.Path, printable)
		if c.doc.Has(key + ".path") { // a program from anywhere is run only when it is the one that was meant
			c.required(key+".sha256", "sha256sum prints it")
		}
		c.text(key+".sha256", p.SHA256, matching(sumExpr, "a SHA-256 sum", "64 of 0-9 and a-f, as sha256sum prints them"))
		c.text(key+".protocol", p.Protocol, oneOf([]string{"grpc", "exec"}))
		if c.doc.Has(key + ".timeout") {
			c.positive(key+".timeout", p.Timeout)
		}
	}
}
