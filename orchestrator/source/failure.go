package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// failure makes err a *plugins.Error with op and host, of the kind that is
// known best. When the source's own deadline is over that is the reason.
func (s *Source) failure(ctx context.Context, host, op string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		if errors.Is(err, context.Canceled) {
			return err
		}
	}
	e := &plugins.Error{Op: op, Host: host, Kind: plugins.KindOf(err), Err: err}
	if inner, ok := err.(*plugins.Error); ok && inner.Op == "" { //nolint:errorlint // the outermost alone is replaced
		e.Err = cmp.Or(inner.Err, error(inner.Kind))
	}
	return e
}

// explain turns the exit code and the standard error of a script into an
// error that says what to do.
func explain(err error, repo repository) error {
	exit := new(plugins.ExitError)
	if !errors.As(err, &exit) {
		return err
	}
	fail := func(kind plugins.Kind, format string, args ...any) error {
		return &plugins.Error{Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	switch exit.Code {
	case exitNoGit, 127:
		return fail(plugins.Unsupported, `git is not installed; install it, or set via = "controller" under [code]`)
	case exitCorrupt:
		return fail(plugins.Unavailable, "%w: %s", errCorrupt, lastLine(exit.Stderr))
	case exitExists:
		return fail(plugins.Exists, "the release's folder holds other code already")
	case exitMismatch:
		return fail(plugins.Unavailable, "the archive arrived damaged")
	case exitNoSubdir:
		return fail(plugins.NotFound, "the commit has no such folder")
	case exitNoCommit:
		return fail(plugins.NotFound, "%s has no such commit on a branch or tag", repo)
	}
	return explainText(exit, repo)
}

// explainText reads what git and ssh wrote; the scripts make them write
// English.
func explainText(exit *plugins.ExitError, repo repository) error {
	text := string(exit.Stderr)
	says := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	last := cmp.Or(lastLine(exit.Stderr), fmt.Sprintf("git ended with code %d", exit.Code))
	kind := plugins.Kind("")
	switch {
	case says("REMOTE HOST IDENTIFICATION HAS CHANGED"):
		kind, last = plugins.Denied, "the host key of "+repo.hostAndPort()+
			" is not the one in known_hosts: find out why before you replace it there (ssh-keygen -R '"+repo.knownAs()+"')"
	case says("Host key verification failed"):
		kind, last = plugins.Denied, "the host key of "+repo.hostAndPort()+
			" is not known: compare its fingerprint with the one that its operators publish, then add it to your known_hosts (ssh-keyscan "+scanArgs(repo)+" >> ~/.ssh/known_hosts)"
	case says("Permission denied (", "Too many authentication failures"):
		kind, last = plugins.Denied, last+"; "+offered(text)
	case says("Authentication failed", "could not read Username", "could not read Password", "returned error: 403"):
		kind, last = plugins.Denied, last+`; use an ssh address with an agent, or via = "controller" with a credential helper`
	case says("does not appear to be a git repository", "epository not found", "could not be found", "' not found", "does not exist", "not exported"):
		kind, last = plugins.NotFound, "repository "+repo.address+" was not found, or this login may not see it"
	case says("Could not resolve host", "Connection refused", "timed out", "Timeout", "unable to connect", "unable to access",
		"Connection closed", "Connection reset", "unexpectedly", "early EOF", "No route to host", "unreachable"):
		kind = plugins.Unavailable
	}
	return &plugins.Error{Kind: kind, Err: errors.New(last)}
}

func scanArgs(repo repository) string {
	if repo.port == "" {
		return repo.host
	}
	return "-p " + repo.port + " " + repo.host
}

// offered says which keys ssh tried, from what it logs with -v.
func offered(text string) string {
	var keys []string
	for line := range strings.Lines(text) {
		if _, key, ok := strings.Cut(strings.TrimSpace(line), "Offering public key: "); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return "no key was offered: is it in your agent (ssh-add -l)?"
	}
	return "offered: " + strings.Join(keys, ", ")
}

// lastLine is the line that says most: the last that is neither ssh's log nor
// git's general advice.
func lastLine(stderr []byte) string {
	last := ""
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimSpace(line)
		if line == "" || noise(line) {
			continue
		}
		last = line
	}
	return last
}

func noise(line string) bool {
	for _, prefix := range []string{
		"debug1:", "OpenSSH_", "Authenticated to", "Authenticating to", "Transferred:", "Bytes per second:",
		"Please make sure you have", "and the repository exists", "fatal: Could not read from remote repository",
		"Connection closed by authenticating user",
	} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
