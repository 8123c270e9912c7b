package source

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"
)

// A repository is a parsed address of a git repository.
type repository struct {
	address string // as git takes it
	scheme  string // ssh, https, http, git, file
	user    string
	host    string
	port    string // "" for the scheme's own
	path    string
	scp     bool // written as user@host:path
}

// scpLike is user@host:path, with no slash before the colon.
var scpLike = regexp.MustCompile(`^(?:([^@/:]+)@)?([^@/:\[\]]+|\[[0-9a-fA-F:.]+\]):(.+)$`)

// remoteHelper is an address that makes git run a program: ext::sh -c …
var remoteHelper = regexp.MustCompile(`^[A-Za-z0-9+.-]+::`)

// parseRepository refuses what git would take for an option or a program, and
// passwords, which would show on a command line.
func parseRepository(address string) (repository, error) {
	r := repository{address: address}
	switch {
	case address == "":
		return r, errors.New("no repository")
	case strings.HasPrefix(address, "-") || strings.ContainsFunc(address, unicode.IsControl):
		return r, fmt.Errorf("repository %q is not an address", address)
	case remoteHelper.MatchString(address):
		return r, fmt.Errorf("repository %q: remote helpers are not supported", address)
	case strings.Contains(address, "://"):
		return r.parseURL()
	case strings.HasPrefix(address, "/"):
		r.scheme, r.path = "file", address
		return r, nil
	}
	m := scpLike.FindStringSubmatch(address)
	if m == nil {
		return r, fmt.Errorf("repository %q is neither a URL, nor user@host:path, nor an absolute path", address)
	}
	r.scheme, r.scp, r.user, r.host, r.path = "ssh", true, m[1], strings.Trim(m[2], "[]"), m[3]
	return r, r.checkHost()
}

func (r repository) parseURL() (repository, error) {
	u, err := url.Parse(r.address)
	if err != nil {
		return r, errors.New("the repository's URL cannot be parsed") // the cause repeats it, with a password in it
	}
	if _, set := u.User.Password(); set || u.Scheme != "ssh" && u.User != nil && u.Scheme != "git+ssh" {
		return r, fmt.Errorf("repository %s: a login in the address would be visible to everybody on the host; use ssh with an agent, or via = \"controller\" with a credential helper", u.Redacted())
	}
	r.scheme, r.user, r.host, r.port, r.path = u.Scheme, u.User.Username(), u.Hostname(), u.Port(), u.Path
	switch u.Scheme {
	case "git+ssh", "ssh+git":
		r.scheme = "ssh"
	case "ssh", "https", "http", "git":
	case "file":
		return r, nil
	default:
		return r, fmt.Errorf("repository %s: scheme %q is not supported", u.Redacted(), u.Scheme)
	}
	return r, r.checkHost()
}

func (r repository) checkHost() error {
	if r.host == "" || strings.HasPrefix(r.host, "-") || strings.HasPrefix(r.user, "-") {
		return fmt.Errorf("repository %q names no host", r.address)
	}
	return nil
}

// String is the address.
func (r repository) String() string { return r.address }

// knownAs is the name of the git server in a known_hosts file.
func (r repository) knownAs() string {
	if r.port == "" || r.port == "22" {
		return r.host
	}
	return "[" + r.host + "]:" + r.port
}

// join resolves the address of a submodule, which may be relative to r.
func (r repository) join(address string) (repository, error) {
	if strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
		joined := path.Join(r.path, address)
		switch {
		case r.scp && strings.HasPrefix(joined, "../"):
			return repository{}, fmt.Errorf("submodule %q leaves the git server", address)
		case r.scp:
			address = strings.TrimSuffix(r.address, r.path) + joined
		case r.scheme == "file" && !strings.Contains(r.address, "://"):
			address = joined
		default:
			u, err := url.Parse(r.address)
			if err != nil {
				return repository{}, err
			}
			u.Path, u.RawPath = joined, ""
			address = u.String()
		}
	}
	sub, err := parseRepository(address)
	if err != nil {
		return sub, fmt.Errorf("submodule: %w", err)
	}
	if sub.scheme == "file" && r.scheme != "file" {
		return sub, fmt.Errorf("submodule %q points into the file system", address)
	}
	return sub, nil
}

// hostAndPort is where the git server listens, for messages.
func (r repository) hostAndPort() string {
	if r.port == "" {
		return r.host
	}
	return net.JoinHostPort(r.host, r.port)
}

// checkRef applies the rules of git check-ref-format, and refuses what would
// be taken for an option.
func checkRef(ref string) error {
	bad := ref == "" || strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") ||
		strings.HasSuffix(ref, ".") || strings.Contains(ref, "..") || strings.Contains(ref, "//") || strings.Contains(ref, "@{") ||
		strings.ContainsAny(ref, " ~^:?*[\\\x7f") || strings.ContainsFunc(ref, unicode.IsControl)
	for part := range strings.SplitSeq(ref, "/") {
		bad = bad || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	if bad {
		return fmt.Errorf("ref %q is not a branch, tag or commit", ref)
	}
	return nil
}
