// Package sshconfig finds out how a host is reached: what the inventory says
// goes first, then the operator's ssh_config, then what OpenSSH assumes.
//
// ssh itself is asked (ssh -G), because it alone knows all of Match, Include and
// canonical names; github.com/kevinburke/ssh_config serves where there is no ssh
// program. What either leaves to its user, ~ and tokens such as %h, is expanded
// here.
package sshconfig

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/teal-deploy/teal/orchestrator/remote/internal/gate"
	"github.com/teal-deploy/teal/plugins"
)

// Settings are what is known about reaching a host: the inventory's own keys,
// then ssh_config, then defaults.
type Settings struct {
	Alias string // what a person would type after ssh
	Host  string // what to connect to
	Port  string
	User  string

	Identities      []string // key files, first first
	Certificates    []string
	IdentitiesGiven bool   // by the inventory: a missing file is worth a word
	IdentitiesOnly  bool   // offer no other key of the agent
	AgentSocket     string // "": no agent

	Jump         []inventory.Host // the chain of jump hosts, the nearest first
	ProxyCommand string           // expanded
	ProxyRaw     string           // as written: equal for all hosts behind it

	KnownHosts []string // files
	KeyAlias   string   // the name in them; "": host
	AcceptNew  bool     // write unknown host keys there

	Timeout time.Duration
	Become  string
}

// Address is what to connect to, with the port.
func (s *Settings) Address() string { return net.JoinHostPort(s.Host, s.Port) }

// HostKeyName is what known_hosts files call the host.
func (s *Settings) HostKeyName() string {
	if s.KeyAlias != "" {
		return net.JoinHostPort(s.KeyAlias, "22")
	}
	return s.Address()
}

// Login is how a person writes the account: "deploy@web1".
func (s *Settings) Login() string { return s.User + "@" + s.Alias }

// Gate names what handshakes are counted by. What a proxy command leads
// through cannot be known, so it is taken for one address.
func (s *Settings) Gate() string {
	if s.ProxyRaw != "" {
		return s.ProxyRaw
	}
	return s.Address()
}

// ExpandPaths expands ~, ${VARIABLES} and tokens in names of files.
func (s *Settings) ExpandPaths(names []string) ([]string, error) {
	x, err := newExpander(s)
	if err != nil {
		return nil, err
	}
	return x.paths(names)
}

// A Reader reads settings.
type Reader struct {
	File       string        // in place of the user's and the system's, as ssh -F; "none" reads neither
	KnownHosts []string      // in place of ssh_config's; an inventory's own go first
	Timeout    time.Duration // where ssh_config has no ConnectTimeout; 0: 15 seconds
	Log        *slog.Logger  // for files that cannot be used
	Gates      *gate.Set     // limits how many ssh -G run at a time
}

const (
	defaultTimeout = 15 * time.Second
	atOnce         = 8 // ssh -G processes
)

func invalid(err error) error { return &plugins.Error{Kind: plugins.Invalid, Err: err} }

// sshConfig is what ssh_config says of one host: keys in lower case, values in
// order.
type sshConfig map[string][]string

func (c sshConfig) first(key string) string {
	if v := c[key]; len(v) > 0 && v[0] != "none" {
		return v[0]
	}
	return ""
}

// Resolve finds the settings of h.
func (r *Reader) Resolve(ctx context.Context, h inventory.Host) (*Settings, error) {
	s := &Settings{Alias: cmp.Or(h.Address, h.Name), Become: h.SSH.Become}
	if s.Alias == "" || strings.HasPrefix(s.Alias, "-") {
		return nil, invalid(fmt.Errorf("%q is no address", s.Alias))
	}
	if s.Become != "" && s.Become != "sudo" {
		return nil, invalid(fmt.Errorf("become = %q is not known: use \"sudo\"", s.Become))
	}
	config, err := r.readConfig(ctx, s.Alias, h.SSH)
	if err != nil {
		return nil, err
	}
	s.Host = cmp.Or(config.first("hostname"), s.Alias)
	s.Port = cmp.Or(config.first("port"), "22")
	if h.SSH.Port != 0 {
		s.Port = strconv.Itoa(int(h.SSH.Port))
	}
	if s.User = cmp.Or(h.SSH.User, config.first("user")); s.User == "" {
		me, err := user.Current()
		if err != nil {
			return nil, invalid(fmt.Errorf("find the login user: %w", err))
		}
		s.User = me.Username
	}
	if err := s.expandAll(config, h.SSH, r); err != nil {
		return nil, invalid(err)
	}
	s.Timeout = cmp.Or(r.Timeout, defaultTimeout)
	if seconds, err := strconv.Atoi(config.first("connecttimeout")); err == nil && seconds > 0 {
		s.Timeout = time.Duration(seconds) * time.Second
	}
	return s, nil
}

// expandAll fills what may hold tokens such as %h.
func (s *Settings) expandAll(config sshConfig, own inventory.SSH, r *Reader) (err error) {
	s.KeyAlias = config.first("hostkeyalias")
	x, err := newExpander(s)
	if err != nil {
		return err
	}
	identities := config["identityfile"]
	if len(own.Identity) > 0 {
		identities, s.IdentitiesGiven = own.Identity, true
	}
	known := append(fields(config["userknownhostsfile"]), fields(config["globalknownhostsfile"])...)
	if len(own.KnownHosts) > 0 {
		known = own.KnownHosts
	} else if len(r.KnownHosts) > 0 {
		known = r.KnownHosts
	}
	s.Identities, err = x.paths(identities)
	s.Certificates = x.must(&err, config["certificatefile"])
	s.KnownHosts = x.must(&err, known)
	s.IdentitiesOnly = config.first("identitiesonly") == "yes"
	s.AcceptNew = cmp.Or(own.HostKeys, config.first("stricthostkeychecking")) == "accept-new"
	s.AgentSocket = os.Getenv("SSH_AUTH_SOCK")
	if v := config["identityagent"]; len(v) > 0 && v[0] != "SSH_AUTH_SOCK" {
		s.AgentSocket = ""
		if v[0] != "none" {
			s.AgentSocket = strings.Join(x.must(&err, v[:1]), "")
		}
	}
	jump := config.first("proxyjump")
	if own.Jump != "" {
		jump = own.Jump
	}
	if jump != "" && jump != "none" {
		s.Jump = parseJump(jump, own)
	} else if own.Jump == "" {
		if s.ProxyRaw = config.first("proxycommand"); s.ProxyRaw != "" && err == nil {
			s.ProxyCommand, err = x.tokens(s.ProxyRaw)
		}
	}
	s.skipOwnJump()
	return err
}

// skipOwnJump lets "Host *" with a ProxyJump be true for the jump host too: it
// is reached directly.
func (s *Settings) skipOwnJump() {
	if len(s.Jump) == 0 {
		return
	}
	last := s.Jump[len(s.Jump)-1]
	if last.Address == s.Alias && strconv.Itoa(int(cmp.Or(last.SSH.Port, 22))) == s.Port {
		s.Jump = nil
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
func (r *Reader) readConfig(ctx context.Context, alias string, own inventory.SSH) (sshConfig, error) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		return r.parseConfig(alias), nil
	}
	args := []string{"-G"}
	if r.File != "" {
		args = append(args, "-F", r.File)
	}
	if own.User != "" {
		args = append(args, "-l", own.User)
	}
	if own.Port != 0 {
		args = append(args, "-p", strconv.Itoa(int(own.Port)))
	}
	leave, err := r.Gates.Enter(ctx, program, atOnce)
	if err != nil {
		return nil, err
	}
	defer leave()
	out, err := exec.CommandContext(ctx, program, append(args, "--", alias)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, invalid(fmt.Errorf("ssh -G %s: %w", alias, err))
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
func (r *Reader) parseConfig(alias string) sshConfig {
	files := []string{r.File}
	if r.File == "" {
		files = []string{inHome(".ssh/config"), "/etc/ssh/ssh_config"}
	}
	c := make(sshConfig)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			if r.File != "none" && (r.File != "" || !os.IsNotExist(err)) {
				r.Log.Warn("ssh_config is left out", "file", file, "error", err)
			}
			continue
		}
		parsed, err := ssh_config.DecodeBytes(text)
		if err != nil {
			r.Log.Warn("ssh_config is left out; install the ssh program to have all of it", "file", file, "error", err)
			continue
		}
		for _, key := range configKeys() {
			values, err := parsed.GetAll(alias, key)
			if err != nil {
				r.Log.Warn("a key of ssh_config is left out", "file", file, "key", key, "error", err)
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

func newExpander(s *Settings) (expander, error) {
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
		'%': "%", 'd': inHome(""), 'h': s.Host, 'i': me.Uid, 'k': cmp.Or(s.KeyAlias, s.Host),
		'L': short, 'l': name, 'n': s.Alias, 'p': s.Port, 'r': s.User, 'u': me.Username,
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
