package remote

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"

	"github.com/teal-deploy/teal/plugins"
)

// knownHosts keeps the parsed known_hosts files, which many hosts share.
type knownHosts struct {
	mu  sync.Mutex
	dbs map[string]*hostKeyDB
}

// A hostKeyDB is a list of known_hosts files, parsed.
type hostKeyDB struct {
	*knownhosts.HostKeyDB
	warnings []string // lines that are left out
}

// load returns what files hold. A file that does not exist holds nothing.
// fresh reads them again.
func (k *knownHosts) load(files []string, fresh bool) (*hostKeyDB, error) {
	key := strings.Join(files, "\x00")
	if db := k.dbs[key]; db != nil && !fresh {
		return db, nil
	}
	db, err := readKnownHosts(files)
	if err != nil {
		return nil, err
	}
	if k.dbs == nil {
		k.dbs = make(map[string]*hostKeyDB)
	}
	k.dbs[key] = db
	return db, nil
}

// readKnownHosts parses files. The parser gives up at a line that it does not
// understand, such as one with a newer type of key, where OpenSSH passes over
// it. Then it gets copies in which these lines are empty.
func readKnownHosts(files []string) (*hostKeyDB, error) {
	var present []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			present = append(present, f)
		} else if !os.IsNotExist(err) {
			return nil, fmt.Errorf("read known hosts: %w", err)
		}
	}
	parsed, err := knownhosts.NewDB(present...)
	if err == nil {
		return &hostKeyDB{HostKeyDB: parsed}, nil
	}
	folder, err := os.MkdirTemp("", "teal-known-hosts-")
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	db := new(hostKeyDB)
	clean := make([]string, len(present))
	for i, f := range present {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read known hosts: %w", err)
		}
		// The copy's path ends with the whole path of the file, from which
		// messages find it again.
		clean[i] = filepath.Join(folder, f)
		if err := os.MkdirAll(filepath.Dir(clean[i]), 0o700); err != nil {
			return nil, fmt.Errorf("read known hosts: %w", err)
		}
		if err := os.WriteFile(clean[i], db.blank(f, text), 0o600); err != nil {
			return nil, fmt.Errorf("read known hosts: %w", err)
		}
	}
	if db.HostKeyDB, err = knownhosts.NewDB(clean...); err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	return db, nil
}

// blank empties the lines of a file that cannot be understood.
func (db *hostKeyDB) blank(file string, text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if _, _, _, _, _, err := ssh.ParseKnownHosts(line); err != nil {
			db.warnings = append(db.warnings, fmt.Sprintf("%s:%d: %v", file, i+1, err))
			lines[i] = nil
		}
	}
	return bytes.Join(lines, []byte("\n"))
}

// hostKeyPolicy decides whether to trust a host's key.
type hostKeyPolicy struct {
	known    *knownHosts
	settings *settings
	warn     func(text string, args ...any)
}

// name is what known_hosts calls the host.
func (p *hostKeyPolicy) name() string {
	if p.settings.keyAlias != "" {
		return net.JoinHostPort(p.settings.keyAlias, "22")
	}
	return p.settings.address()
}

// algorithms returns what to ask the host for: the types of the keys that are
// known first, so that a host is not taken for an impostor because it prefers
// a key of another type. Certificates are of use only with a known authority.
func (p *hostKeyPolicy) algorithms() ([]string, error) {
	p.known.mu.Lock()
	defer p.known.mu.Unlock()
	_, have := p.known.dbs[strings.Join(p.settings.knownHosts, "\x00")]
	db, err := p.known.load(p.settings.knownHosts, false)
	if err != nil {
		return nil, kindError(plugins.Invalid, err)
	}
	if !have {
		for _, w := range db.warnings {
			p.warn("a line of known_hosts is left out", "line", w)
		}
	}
	algorithms := db.HostKeyAlgorithms(p.name())
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !strings.Contains(a, "-cert-") && !slices.Contains(algorithms, a) {
			algorithms = append(algorithms, a)
		}
	}
	return algorithms, nil
}

// check is an ssh.HostKeyCallback. Its errors are of kind Denied.
func (p *hostKeyPolicy) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	p.known.mu.Lock()
	defer p.known.mu.Unlock()
	db, err := p.known.load(p.settings.knownHosts, false)
	if err != nil {
		return kindError(plugins.Invalid, err)
	}
	err = db.HostKeyCallback()(p.name(), remote, key)
	if err == nil {
		return nil
	}
	if knownhosts.IsHostUnknown(err) && p.settings.acceptNew && len(p.settings.knownHosts) > 0 {
		return p.accept(key)
	}
	return kindError(plugins.Denied, p.explain(err, key))
}

// explain turns a refusal into what the operator needs to decide.
func (p *hostKeyPolicy) explain(err error, key ssh.PublicKey) error {
	shown := fingerprint(key)
	if revoked, ok := errors.AsType[*xknownhosts.RevokedError](err); ok {
		return fmt.Errorf("the host key %s is revoked by %s", shown, p.place(revoked.Revoked))
	}
	unknown, ok := errors.AsType[*xknownhosts.KeyError](err)
	if !ok {
		return fmt.Errorf("the host key %s is refused: %w", shown, err)
	}
	if len(unknown.Want) > 0 {
		want := unknown.Want[0]
		for _, w := range unknown.Want {
			if w.Key.Type() == key.Type() {
				want = w
			}
		}
		return fmt.Errorf("the host key is another one: %s says %s, the host shows %s; "+
			"somebody may be listening in. If the host was set up anew: ssh-keygen -f %s -R %s",
			p.place(want), fingerprint(want.Key), shown, quote(p.file(want)), quote(knownhosts.Normalize(p.name())))
	}
	file := "~/.ssh/known_hosts"
	if len(p.settings.knownHosts) > 0 {
		file = p.settings.knownHosts[0]
	}
	return fmt.Errorf("the host key %s is not known. If it is the right one: echo %s >> %s",
		shown, quote(p.line(key)), file)
}

// line is the line of known_hosts that makes key known.
func (p *hostKeyPolicy) line(key ssh.PublicKey) string {
	return knownhosts.Line([]string{p.name()}, key)
}

// place says where a key is written: file and line.
func (p *hostKeyPolicy) place(k xknownhosts.KnownKey) string {
	return fmt.Sprintf("%s:%d", p.file(k), k.Line)
}

// file is where a key is written, also when a copy was read.
func (p *hostKeyPolicy) file(k xknownhosts.KnownKey) string {
	for _, f := range p.settings.knownHosts {
		if strings.HasSuffix(k.Filename, f) {
			return f
		}
	}
	return k.Filename
}

// accept writes an unknown key to the first file and reads it again.
func (p *hostKeyPolicy) accept(key ssh.PublicKey) error {
	file := p.settings.knownHosts[0]
	if err := appendLine(file, p.line(key)); err != nil {
		return kindError(plugins.Denied, fmt.Errorf("keep the new host key %s: %w", fingerprint(key), err))
	}
	p.warn("a new host key is accepted", "host", p.settings.alias, "key", fingerprint(key), "file", file)
	_, err := p.known.load(p.settings.knownHosts, true)
	return err
}

// appendLine adds line to file, on a line of its own.
func appendLine(file, line string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		line = "\n" + line
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

func fingerprint(key ssh.PublicKey) string {
	return key.Type() + " " + ssh.FingerprintSHA256(key)
}
