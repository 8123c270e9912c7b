package source

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// knownHostsFiles expands the names of known_hosts files; nil stands for those
// that OpenSSH reads.
func knownHostsFiles(files []string) ([]string, error) {
	if len(files) == 0 {
		files = []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	}
	return expandHome(files)
}

func expandHome(files []string) ([]string, error) {
	expanded := make([]string, len(files))
	for i, file := range files {
		if rest, ok := strings.CutPrefix(file, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, &plugins.Error{Op: "find " + file, Kind: plugins.Unsupported, Err: err}
			}
			file = filepath.Join(home, rest)
		}
		expanded[i] = file
	}
	return expanded, nil
}

// knownHostsOf returns the operator's lines about r's server, hashed or not;
// none when r is not reached by SSH.
func (s *Source) knownHostsOf(ctx context.Context, r repository) (string, error) {
	if r.scheme != "ssh" {
		return "", nil
	}
	s.mu.Lock()
	lines, ok := s.known[r.knownAs()]
	s.mu.Unlock()
	if ok {
		return lines, nil
	}
	var found bytes.Buffer
	for _, file := range s.knownHosts {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			continue
		}
		var out bytes.Buffer
		err := here{}.Run(ctx, &plugins.Command{Args: []string{"ssh-keygen", "-F", r.knownAs(), "-f", file}, Stdout: &out})
		if exit := new(plugins.ExitError); errors.As(err, &exit) && exit.Code == 1 {
			continue // the file has no such line
		} else if err != nil {
			return "", err
		}
		for line := range strings.Lines(out.String()) {
			if !strings.HasPrefix(line, "#") {
				found.WriteString(strings.TrimRight(line, "\r\n") + "\n")
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[r.knownAs()] = found.String()
	return found.String(), nil
}
