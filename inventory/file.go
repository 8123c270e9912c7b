package inventory

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// The file as it is written.
type (
	file struct {
		SSH    sshTable              `toml:"ssh"`
		Vars   map[string]any        `toml:"vars"`
		Groups map[string]groupTable `toml:"groups"`
		Hosts  map[string]hostTable  `toml:"hosts"`
	}
	groupTable struct {
		Hosts    []string       `toml:"hosts"`
		Children []string       `toml:"children"`
		Vars     map[string]any `toml:"vars"`
		SSH      sshTable       `toml:"ssh"`
	}
	hostTable struct {
		Address *string        `toml:"address"`
		Vars    map[string]any `toml:"vars"`
		SSH     sshTable       `toml:"ssh"`
	}
	// In an sshTable nil is what the file does not say: an empty value takes
	// back what a group said.
	sshTable struct {
		User       *string   `toml:"user"`
		Port       *uint16   `toml:"port"`
		Identity   *[]string `toml:"identity"`
		Jump       *string   `toml:"jump"`
		Become     *string   `toml:"become"`
		KnownHosts *[]string `toml:"known_hosts"`
		HostKeys   *string   `toml:"host_keys"`
	}
)

const becomeHint = `write "sudo", or "" for not at all`

// Parse reads an inventory; name is the file's name in problems. When the
// file is wrong the error is a tomlfile.Problems with everything that is.
func Parse(name string, src []byte) (*Inventory, error) {
	var f file
	doc, problems := tomlfile.Decode(name, src, &f, tomlfile.Rules{Hints: map[string]string{
		"ssh.become":          becomeHint,
		"groups.*.ssh.become": becomeHint,
		"hosts.*.ssh.become":  becomeHint,
	}})
	if doc == nil {
		return nil, problems.Err()
	}
	r := &reader{doc: doc, problems: problems, said: map[string]bool{}, model: model{groups: map[string]*group{}, hosts: map[string]*host{}}}
	for _, p := range problems {
		r.said[p.Key] = true
	}
	r.model.top = r.layer("", f.Vars, f.SSH)
	// A section that comes first in the file comes first in the inventory.
	for _, section := range doc.Keys("") {
		switch section {
		case "groups":
			for _, name := range doc.Keys("groups") {
				r.group(name, f.Groups[name])
			}
		case "hosts":
			for _, name := range doc.Keys("hosts") {
				r.host(name, f.Hosts[name])
			}
		}
	}
	r.children()
	if err := r.problems.Err(); err != nil {
		return nil, err
	}
	return r.model.inventory(), nil
}

// A reader turns the file into the model and collects what is wrong.
type reader struct {
	doc      *tomlfile.Document
	problems tomlfile.Problems
	said     map[string]bool // keys whose values have no right type
	model    model
}

func (r *reader) fail(key string, err error) {
	if err != nil && !r.said[key] {
		p := r.doc.Problem(key, err.Error(), tomlfile.Hint(err))
		r.problems = append(r.problems, p)
	}
}

func (r *reader) failName(key string, err error) {
	if err != nil {
		p := r.doc.KeyProblem(key, err.Error(), tomlfile.Hint(err))
		r.problems = append(r.problems, p)
	}
}

func (r *reader) group(name string, table groupTable) {
	key := tomlfile.Join("groups", name)
	r.failName(key, checkGroup(name))
	g := r.model.addGroup(name)
	g.layer = r.layer(key, table.Vars, table.SSH)
	g.children = table.Children
	for i, pattern := range table.Hosts {
		g.hosts = append(g.hosts, r.expand(tomlfile.Index(key+".hosts", i), pattern, r.fail)...)
	}
}

func (r *reader) host(name string, table hostTable) {
	key := tomlfile.Join("hosts", name)
	layer := r.layer(key, table.Vars, table.SSH)
	names := r.expand(key, name, r.failName)
	if table.Address != nil {
		r.fail(key+".address", checkHost("an address", *table.Address))
		if len(names) > 1 {
			r.fail(key+".address", fmt.Errorf("is said for %d hosts at once", len(names)))
		}
	}
	for _, n := range names {
		h := r.model.addHost(n)
		if h.described != "" {
			r.failName(key, fmt.Errorf("host %q is described by %s already", n, h.described))
			continue
		}
		h.described, h.layer = key, layer
		if table.Address != nil {
			h.address = *table.Address
		}
	}
}

// expand returns the hosts that a name with ranges stands for and makes them
// known. What is wrong with it is said once, however many hosts it stands for.
func (r *reader) expand(key, pattern string, fail func(string, error)) []string {
	names, err := expandRanges(pattern)
	for i := 0; err == nil && i < len(names); i++ {
		if err = checkHost("a name for a host", names[i]); err == nil && names[i] == "all" {
			err = errors.New(`a host cannot be named "all"`)
		}
	}
	if err == nil && len(r.model.hosts)+len(names) > 2*maxHosts {
		err = fmt.Errorf("the inventory holds more than %d hosts", maxHosts)
	}
	if err != nil {
		fail(key, err)
		return nil
	}
	for _, name := range names {
		r.model.addHost(name)
	}
	return names
}

// layer checks what a table says about hosts.
func (r *reader) layer(key string, vars map[string]any, ssh sshTable) layer {
	l := layer{vars: map[string]string{}, ssh: ssh}
	under := func(name string) string {
		if key == "" {
			return name
		}
		return key + "." + name
	}
	for _, name := range r.doc.Keys(under("vars")) {
		at := tomlfile.Join(under("vars"), name)
		r.failName(at, CheckVar(name))
		text, err := r.text(at, vars[name])
		r.fail(at, err)
		l.vars[name] = text
	}
	r.ssh(under("ssh"), ssh)
	return l
}

// text returns the value of a variable as text: a number with a point as it
// is written, so that a version such as 3.10 stays what it is.
func (r *reader) text(key string, value any) (string, error) {
	switch v := value.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return "", errors.New("holds a NUL character")
		}
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", errors.New("must be a number that has a size")
		}
		return strings.ReplaceAll(r.doc.Source(key), "_", ""), nil
	}
	return "", &tomlfile.Fault{
		Message: "must be text, a number, true or false",
		Hint:    "a variable has one value; write several as text",
	}
}

func (r *reader) ssh(key string, t sshTable) {
	check := func(name string, value *string, rule func(string) error) {
		if value != nil && *value != "" {
			r.fail(key+"."+name, rule(*value))
		}
	}
	check("user", t.User, checkUser)
	check("jump", t.Jump, checkJump)
	check("become", t.Become, oneOf("sudo"))
	check("host_keys", t.HostKeys, oneOf("strict", "accept-new"))
	if t.Port != nil && *t.Port == 0 {
		r.fail(key+".port", errors.New("0 is not a port between 1 and 65535"))
	}
	for name, files := range map[string]*[]string{"identity": t.Identity, "known_hosts": t.KnownHosts} {
		if files == nil {
			continue
		}
		for i, f := range *files {
			r.fail(tomlfile.Index(key+"."+name, i), checkFile(f))
		}
	}
}

func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		hint := tomlfile.DidYouMean(s, words)
		if hint == "" {
			hint = "leave it out or write " + strings.Join(words, " or ")
		}
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not one of %s", s, strings.Join(words, ", ")), Hint: hint}
	}
}

// children checks that the groups below groups exist, and that none is below
// itself.
func (r *reader) children() {
	known := r.model.groupOrder
	for _, name := range known {
		key := tomlfile.Join("groups", name)
		if _, ok := r.model.hosts[name]; ok {
			r.failName(key, &tomlfile.Fault{
				Message: fmt.Sprintf("%q is a host as well", name),
				Hint:    "rename the group: a pattern could not tell one from the other",
			})
		}
		for i, child := range r.model.groups[name].children {
			at := tomlfile.Index(key+".children", i)
			if _, ok := r.model.groups[child]; !ok {
				r.fail(at, &tomlfile.Fault{Message: fmt.Sprintf("there is no group %q", child), Hint: childHint(child, known, r.model.hosts)})
				continue
			}
			if path := r.model.pathTo(child, name); path != nil {
				r.fail(at, fmt.Errorf("the group is below itself: %s", strings.Join(append([]string{name}, path...), " > ")))
			}
		}
	}
}

func childHint(child string, groups []string, hosts map[string]*host) string {
	if _, ok := hosts[child]; ok {
		return "it is a host: name it in hosts"
	}
	return tomlfile.DidYouMean(child, groups)
}
