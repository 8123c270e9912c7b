package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

const (
	defaultTimeout = 10 * time.Minute
	// maxFetches is how many hosts ask the git server at the same time.
	maxFetches = 10
)

// Options say where code comes from.
type Options struct {
	Code spec.Code

	// KnownHosts are the operator's known_hosts files, in which the git
	// server's key is looked up; none: those of OpenSSH.
	KnownHosts []string

	// Cache is the folder of the operator's mirrors; "": teal/mirrors in the
	// user's cache folder.
	Cache string

	// Timeout limits Resolve and Fetch for one host; 0: ten minutes.
	Timeout time.Duration
}

// A Source is the repository of an app as one deployment uses it. Its methods
// may be called by several goroutines at the same time.
type Source struct {
	code       spec.Code
	repository repository
	knownHosts []string
	cache      string
	timeout    time.Duration
	fetches    chan struct{} // holds a value for each running fetch

	mu       sync.Mutex
	known    map[string]string // known_hosts lines by host and port
	verified map[string]bool   // commits with a good signature
	archive  *archive          // the last that was made
	making   chan struct{}     // holds a value while an archive is made
}

// New checks what o says. An error is of kind Invalid.
func New(o Options) (*Source, error) {
	r, err := parseRepository(o.Code.Repository)
	if err == nil {
		err = checkRef(o.Code.Ref)
	}
	if sub := o.Code.Subdir; err == nil && sub != "" && !filepath.IsLocal(sub) {
		err = fmt.Errorf("subdir %q leaves the repository", sub)
	}
	if err == nil && o.Code.Via != viaHost && o.Code.Via != viaController {
		err = fmt.Errorf("via %q is neither host nor controller", o.Code.Via)
	}
	if err != nil {
		return nil, &plugins.Error{Op: "code", Kind: plugins.Invalid, Err: err}
	}
	files, err := knownHostsFiles(o.KnownHosts)
	if err != nil {
		return nil, err
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, &plugins.Error{Op: "code", Kind: plugins.Unsupported, Err: err}
		}
		o.Cache = filepath.Join(dir, "teal", "mirrors")
	}
	if o.Code.Subdir != "" {
		o.Code.Subdir = filepath.ToSlash(filepath.Clean(o.Code.Subdir))
	}
	return &Source{
		code: o.Code, repository: r, knownHosts: files, cache: o.Cache,
		timeout:  cmp.Or(o.Timeout, defaultTimeout),
		fetches:  make(chan struct{}, maxFetches),
		known:    map[string]string{},
		verified: map[string]bool{},
		making:   make(chan struct{}, 1),
	}, nil
}

// The values of spec.Code.Via.
const (
	viaHost       = "host"
	viaController = "controller"
)

// Close gives up what was kept between hosts.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.archive == nil {
		return nil
	}
	err := s.archive.file.Close()
	s.archive = nil
	return err
}

// A Request says which commit is wanted where.
type Request struct {
	Dir     string // the app's folder on the host, absolute
	Release string // the folder below Dir/releases, one path element
	Commit  string // as Resolve returned it
}

func (r Request) folder() string { return r.Dir + "/releases/" + r.Release }

func (r Request) check() error {
	switch {
	case !filepath.IsAbs(r.Dir):
		return fmt.Errorf("folder %q is not absolute", r.Dir)
	case !releaseID.MatchString(r.Release):
		return fmt.Errorf("release %q cannot name a folder", r.Release)
	case !wholeCommit.MatchString(r.Commit):
		return fmt.Errorf("commit %q is not a whole commit id", r.Commit)
	}
	return nil
}

var (
	releaseID   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	wholeCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// Fetch writes the commit's tree on h and returns the folder it lies in,
// Dir/releases/RELEASE/code. One that is complete already is returned as it
// is; the rest of one that is not is replaced. The caller holds the host's
// lock.
//
// An error is a *plugins.Error: NotFound for a repository, commit or subdir
// that does not exist, Denied for a login, host key or signature that was
// refused, Unavailable for a git server that does not answer, Unsupported when
// a program is missing, Exists when the release holds another commit, Lost
// when the connection to the host went away.
func (s *Source) Fetch(ctx context.Context, h plugins.Host, r Request) (string, error) {
	if err := r.check(); err != nil {
		return "", &plugins.Error{Op: "fetch code", Host: h.String(), Kind: plugins.Invalid, Err: err}
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	var err error
	if s.code.Via == viaController {
		err = s.send(ctx, h, r)
	} else {
		err = s.fetchOnHost(ctx, h, r)
	}
	if err != nil {
		return "", s.failure(ctx, h.String(), "fetch "+shortCommit(r.Commit), err)
	}
	return r.folder() + "/code", nil
}

// limit gives ctx the source's deadline.
func (s *Source) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.timeout, &plugins.Error{
		Kind: plugins.Unavailable, Err: fmt.Errorf("not done within %s", s.timeout),
	})
}

// stamp is what the marker of a complete folder says.
func (s *Source) stamp(commit string) string {
	return fmt.Sprintf("commit=%s subdir=%s submodules=%t", commit, s.code.Subdir, s.code.Submodules)
}

func shortCommit(commit string) string { return commit[:12] }

// errCorrupt is the error of a mirror that lacks what it should hold.
var errCorrupt = errors.New("the mirror is damaged")
