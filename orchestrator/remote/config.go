package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/plugins"
)

// settings are what is known about reaching a host: the inventory's own keys,
// then ssh_config, then defaults.
type settings struct {
	alias string // what a person would type after ssh
	host  string // what to connect to
	port  string
	user  string

	identities      []string // key files, first first
	certificates    []string
	identitiesGiven bool   // by the inventory: a missing file is worth a word
	identitiesOnly  bool   // offer no other key of the agent
	agentSocket     string // "": no agent

	jump         []inventory.Host // the chain of jump hosts, the nearest first
	proxyCommand string           // expanded
	proxyRaw     string           // as written: equal for all hosts behind it

	knownHosts []string // files
	keyAlias   string   // the name in them; "": host
	acceptNew  bool     // write unknown host keys there

	timeout time.Duration
	become  string
}

func (s *settings) address() string { return net.JoinHostPort(s.host, s.port) }

// login is how a person writes the account: "deploy@web1".
func (s *settings) login() string { return s.user + "@" + s.alias }

// gate names what handshakes are counted by. What a proxy command leads
// through cannot be known, so it is taken for one address.
func (s *settings) gate() string {
	if s.proxyRaw != "" {
		return s.proxyRaw
	}
	return s.address()
}

// sshConfig is what ssh_config says of one host: keys in lower case, values in
// order.
type sshConfig map[string][]string

func (c sshConfig) first(key string) string {
	if v := c[key]; len(v) > 0 && v[0] != "none" {
		return v[0]
	}
	return ""
}

// resolve finds the settings of h.
func (d *Dialer) resolve(ctx context.Context, h inventory.Host) (*settings, error) {
	s := &settings{alias: or(h.Address, h.Name), become: h.SSH.Become}
	if s.alias == "" || strings.HasPrefix(s.alias, "-") {
		return nil, kindError(plugins.Invalid, fmt.Errorf("%q is no address", s.alias))
	}
	if s.become != "" && s.become != "sudo" {
		return nil, kindError(plugins.Invalid, fmt.Errorf("become = %q is not known: use \"sudo\"", s.become))
	}
	config, err := d.readConfig(ctx, s.alias, h.SSH)
	if err != nil {
		return nil, err
	}
	s.host = or(config.first("hostname"), s.alias)
	s.port = or(config.first("port"), "22")
	if h.SSH.Port != 0 {
		s.port = strconv.Itoa(int(h.SSH.Port))
	}
	if s.user = or(h.SSH.User, config.first("user")); s.user == "" {
		me, err := user.Current()
		if err != nil {
			return nil, kindError(plugins.Invalid, fmt.Errorf("find the login user: %w", err))
		}
		s.user = me.Username
	}
	if err := s.expandAll(config, h.SSH, d); err != nil {
		return nil, kindError(plugins.Invalid, err)
	}
	s.timeout = or(d.Timeout, defaultTimeout)
	if seconds, err := strconv.Atoi(config.first("connecttimeout")); err == nil && seconds > 0 {
		s.timeout = time.Duration(seconds) * time.Second
	}
	return s, nil
}

// expandAll fills what may hold tokens such as %h.
func (s *settings) expandAll(config sshConfig, own inventory.SSH, d *Dialer) (err error) {
	s.keyAlias = config.first("hostkeyalias")
	x, err := newExpander(s)
	if err != nil {
		return err
	}
	identities := config["identityfile"]
	if len(own.Identity) > 0 {
		identities, s.identitiesGiven = own.Identity, true
	}
	known := append(fields(config["userknownhostsfile"]), fields(config["globalknownhostsfile"])...)
	if len(own.KnownHosts) > 0 {
		known = own.KnownHosts
	} else if len(d.KnownHosts) > 0 {
		known = d.KnownHosts
	}
	s.identities, err = x.paths(identities)
	s.certificates = x.must(&err, config["certificatefile"])
	s.knownHosts = x.must(&err, known)
	s.identitiesOnly = config.first("identitiesonly") == "yes"
	s.acceptNew = or(own.HostKeys, config.first("stricthostkeychecking")) == "accept-new"
	s.agentSocket = os.Getenv("SSH_AUTH_SOCK")
	if v := config["identityagent"]; len(v) > 0 && v[0] != "SSH_AUTH_SOCK" {
		s.agentSocket = ""
		if v[0] != "none" {
			s.agentSocket = strings.Join(x.must(&err, v[:1]), "")
		}
	}
	jump := config.first("proxyjump")
	if own.Jump != "" {
		jump = own.Jump
	}
	if jump != "" && jump != "none" {
		s.jump = parseJump(jump, own)
	} else if own.Jump == "" {
		if s.proxyRaw = config.first("proxycommand"); s.proxyRaw != "" && err == nil {
			s.proxyCommand, err = x.tokens(s.proxyRaw)
		}
	}
	s.skipOwnJump()
	return err
}

// skipOwnJump lets "Host *" with a ProxyJump be true for the jump host too: it
// is reached directly.
func (s *settings) skipOwnJump() {
	if len(s.jump) == 0 {
		return
	}
	last := s.jump[len(s.jump)-1]
	if last.Address == s.alias && strconv.Itoa(int(or(last.SSH.Port, 22))) == s.port {
		s.jump = nil
	}
}

// parseJump reads a chain such as "ops@bastion:2222,inner". What the inventory
// says of keys and known hosts holds for the chain as well.
func parseJump(chain string, own inventory.SSH) []inventory.Host {
	var hosts []inventory.Host
	for hop := range strings.SplitSeq(chain, ",") {
		hop = strings.TrimPrefix(strings.TrimSpace(hop), "ssh://")
		h := inventory.Host{SSH: inventory.SSH{
			Identity: own.Identity, KnownHosts: own.KnownHosts, HostKeys: own.HostKeys,
		}}
		if i := strings.LastIndexByte(hop, '@'); i >= 0 {
			h.SSH.User, hop = hop[:i], hop[i+1:]
		}
		h.Name, h.Address = hop, strings.Trim(hop, "[]")
		if host, port, err := net.SplitHostPort(hop); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				h.Address, h.SSH.Port = host, uint16(n)
			}
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// readConfig asks ssh itself, which knows all of Match, Include and
// canonical names; where there is no ssh, a parser that knows most of it.
func (d *Dialer) readConfig(ctx context.Context, alias string, own inventory.SSH) (sshConfig, error) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		return d.parseConfig(alias), nil
	}
	args := []string{"-G"}
	if d.Config != "" {
		args = append(args, "-F", d.Config)
	}
	if own.User != "" {
		args = append(args, "-l", own.User)
	}
	if own.Port != 0 {
		args = append(args, "-p", strconv.Itoa(int(own.Port)))
	}
	leave, err := d.gates.enter(ctx, program, configReaders)
	if err != nil {
		return nil, err
	}
	defer leave()
	out, err := exec.CommandContext(ctx, program, append(args, "--", alias)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, kindError(plugins.Invalid, fmt.Errorf("ssh -G %s: %w", alias, err))
	}
	return parseDump(out), nil
}

// parseDump reads what ssh -G prints: a key and a value a line.
func parseDump(out []byte) sshConfig {
	c := make(sshConfig)
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), " "); ok {
			c[key] = append(c[key], strings.TrimSpace(value))
		}
	}
	return c
}

// parseConfig reads the files of ssh_config without ssh. A file that it cannot
// read in full is left out with a warning: half of it could mean another host.
func (d *Dialer) parseConfig(alias string) sshConfig {
	files := []string{d.Config}
	if d.Config == "" {
		files = []string{inHome(".ssh/config"), "/etc/ssh/ssh_config"}
	}
	c := make(sshConfig)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			if d.Config != "none" && (d.Config != "" || !os.IsNotExist(err)) {
				d.log().Warn("ssh_config is left out", "file", file, "error", err)
			}
			continue
		}
		parsed, err := ssh_config.DecodeBytes(text)
		if err != nil {
			d.log().Warn("ssh_config is left out; install the ssh program to have all of it", "file", file, "error", err)
			continue
		}
		for _, key := range configKeys() {
			values, err := parsed.GetAll(alias, key)
			if err != nil {
				d.log().Warn("a key of ssh_config is left out", "file", file, "key", key, "error", err)
			}
			c[key] = append(c[key], values...)
		}
	}
	for key, values := range defaultConfig() {
		if len(c[key]) == 0 {
			c[key] = values
		}
	}
	if name := c.first("hostname"); name != "" {
		c["hostname"] = []string{strings.NewReplacer("%%", "%", "%h", alias).Replace(name)}
	}
	return c
}

// configKeys are the keys of ssh_config that have a meaning here.
func configKeys() []string {
	return []string{
		"hostname", "port", "user", "identityfile", "identitiesonly", "identityagent",
		"certificatefile", "proxyjump", "proxycommand", "connecttimeout", "hostkeyalias",
		"userknownhostsfile", "globalknownhostsfile", "stricthostkeychecking",
	}
}

// defaultConfig is what OpenSSH assumes.
func defaultConfig() sshConfig {
	return sshConfig{
		"identityfile": {
			"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ecdsa_sk", "~/.ssh/id_ed25519", "~/.ssh/id_ed25519_sk",
		},
		"userknownhostsfile":   {"~/.ssh/known_hosts ~/.ssh/known_hosts2"},
		"globalknownhostsfile": {"/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"},
	}
}

// fields splits lists of files that stand in one value.
func fields(values []string) []string {
	var all []string
	for _, v := range values {
		if v != "none" {
			all = append(all, strings.Fields(v)...)
		}
	}
	return all
}

func inHome(path string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(home, path)
}

// An expander replaces what OpenSSH leaves to its user: ~, ${VARIABLES} and
// tokens such as %h.
type expander map[byte]string

func newExpander(s *settings) (expander, error) {
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("find out who runs this: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find the name of this computer: %w", err)
	}
	short, _, _ := strings.Cut(name, ".")
	return expander{
		'%': "%", 'd': inHome(""), 'h': s.host, 'i': me.Uid, 'k': or(s.keyAlias, s.host),
		'L': short, 'l': name, 'n': s.alias, 'p': s.port, 'r': s.user, 'u': me.Username,
	}, nil
}

// tokens replaces the tokens of text.
func (x expander) tokens(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		i++
		if i == len(text) {
			return "", fmt.Errorf("%q ends with a lone %%", text)
		}
		value, ok := x[text[i]]
		if !ok {
			return "", fmt.Errorf("the token %%%c of %q is not known", text[i], text)
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// paths expands file names.
func (x expander) paths(names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		path, err := x.tokens(name)
		if err != nil {
			return nil, err
		}
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			path = inHome(rest)
		}
		all = append(all, expandVariables(path))
	}
	return all, nil
}

// must is paths for a row of calls: it does nothing once *err is set.
func (x expander) must(err *error, names []string) []string {
	if *err != nil {
		return nil
	}
	all, failed := x.paths(names)
	*err = failed
	return all
}

// expandVariables replaces ${NAME}, and nothing else that os.Expand would.
func expandVariables(path string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(path, "${")
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			b.WriteString(path)
			return b.String()
		}
		b.WriteString(before + os.Getenv(name))
		path = after
	}
}
