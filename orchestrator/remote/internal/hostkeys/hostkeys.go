// Package hostkeys decides whether a host is the one that it claims to be, as
// OpenSSH's known_hosts files say: strictly, or writing down what is new.
//
// github.com/skeema/knownhosts adds to x/crypto which algorithms to ask a host
// for. Lines that neither understands are passed over, as OpenSSH does.
package hostkeys

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

	"github.com/teal-deploy/teal/orchestrator/remote/internal/shell"
	"github.com/teal-deploy/teal/plugins"
)

// Known keeps parsed known_hosts files, which many hosts share. The zero value
// is ready for use.
type Known struct {
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
func (k *Known) load(files []string, fresh bool) (*hostKeyDB, error) {
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

// A Policy decides whether to trust the key of one host.
type Policy struct {
	Known     *Known
	Files     []string // known_hosts
	Name      string   // what they call the host, with the port
	AcceptNew bool     // write an unknown key to the first file
	Warn      func(text string, args ...any)
}

// Algorithms returns what to ask the host for: the types of the keys that are
// known first, so that a host is not taken for an impostor because it prefers
// a key of another type. Certificates are of use only with a known authority.
func (p *Policy) Algorithms() ([]string, error) {
	p.Known.mu.Lock()
	defer p.Known.mu.Unlock()
	_, have := p.Known.dbs[strings.Join(p.Files, "\x00")]
	db, err := p.Known.load(p.Files, false)
	if err != nil {
		return nil, invalid(err)
	}
	if !have {
		for _, w := range db.warnings {
			p.Warn("a line of known_hosts is left out", "line", w)
		}
	}
	algorithms := db.HostKeyAlgorithms(p.Name)
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !strings.Contains(a, "-cert-") && !slices.Contains(algorithms, a) {
			algorithms = append(algorithms, a)
		}
	}
	return algorithms, nil
}

// Check is an ssh.HostKeyCallback. Its errors are of kind Denied.
func (p *Policy) Check(_ string, remote net.Addr, key ssh.PublicKey) error {
	p.Known.mu.Lock()
	defer p.Known.mu.Unlock()
	db, err := p.Known.load(p.Files, false)
	if err != nil {
		return invalid(err)
	}
	if db.HostKeyCallback()(p.Name, remote, key) == nil {
		return nil
	}
	// The operator, or another teal, may have added the key in the meantime.
	if db, err = p.Known.load(p.Files, true); err != nil {
		return invalid(err)
	}
	err = db.HostKeyCallback()(p.Name, remote, key)
	if err == nil {
		return nil
	}
	if knownhosts.IsHostUnknown(err) && p.AcceptNew && len(p.Files) > 0 {
		return p.accept(key)
	}
	return denied(p.explain(err, key))
}

// explain turns a refusal into what the operator needs to decide.
func (p *Policy) explain(err error, key ssh.PublicKey) error {
	shown := Fingerprint(key)
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
			p.place(want), Fingerprint(want.Key), shown, shell.Quote(p.file(want)), shell.Quote(knownhosts.Normalize(p.Name)))
	}
	file := "~/.ssh/known_hosts"
	if len(p.Files) > 0 {
		file = p.Files[0]
	}
	return fmt.Errorf("the host key %s is not known. If it is the right one: echo %s >> %s",
		shown, shell.Quote(p.line(key)), file)
}

// line is the line of known_hosts that makes key known.
func (p *Policy) line(key ssh.PublicKey) string {
	return knownhosts.Line([]string{p.Name}, key)
}

// place says where a key is written: file and line.
func (p *Policy) place(k xknownhosts.KnownKey) string {
	return fmt.Sprintf("%s:%d", p.file(k), k.Line)
}

// file is where a key is written, also when a copy was read.
func (p *Policy) file(k xknownhosts.KnownKey) string {
	if slices.Contains(p.Files, k.Filename) {
		return k.Filename
	}
	for _, f := range p.Files {
		if strings.HasSuffix(k.Filename, f) {
			return f
		}
	}
	return k.Filename
}

// accept writes an unknown key to the first file and reads it again.
func (p *Policy) accept(key ssh.PublicKey) error {
	file := p.Files[0]
	if err := appendLine(file, p.line(key)); err != nil {
		return denied(fmt.Errorf("keep the new host key %s: %w", Fingerprint(key), err))
	}
	p.Warn("a new host key is accepted", "host", p.Name, "key", Fingerprint(key), "file", file)
	_, err := p.Known.load(p.Files, true)
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

// Fingerprint is how a person compares a key: its type and SHA256.
func Fingerprint(key ssh.PublicKey) string {
	return key.Type() + " " + ssh.FingerprintSHA256(key)
}

func denied(err error) error { return &plugins.Error{Kind: plugins.Denied, Err: err} }

func invalid(err error) error { return &plugins.Error{Kind: plugins.Invalid, Err: err} }
