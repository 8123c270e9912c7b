package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// verify refuses a commit without a good signature of somebody whom the
// operator trusts. Object is the commit as a host or mirror has it: it must
// have the commit's hash, so that nobody in between is trusted. The whole tree
// hangs on that hash.
func (s *Source) verify(ctx context.Context, commit string, object []byte) error {
	s.mu.Lock()
	done := s.verified[commit]
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := os.MkdirAll(s.cache, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.cache, "verify-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out, err := verifyIn(ctx, filepath.Join(dir, "git"), commit, object)
	if err != nil {
		exit := new(plugins.ExitError)
		if !errors.As(err, &exit) {
			return err
		}
		reason := "it has no signature"
		if text := strings.TrimSpace(string(exit.Stderr)); text != "" {
			reason = strings.Join(strings.Fields(text), " ")
		}
		return &plugins.Error{Kind: plugins.Denied, Err: fmt.Errorf("commit %s is not signed by anybody you trust: %s", shortCommit(commit), reason)}
	}
	if got := strings.TrimSpace(out); got != commit {
		return &plugins.Error{Kind: plugins.Denied, Err: fmt.Errorf("commit %s was asked for, %q came", shortCommit(commit), got)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[commit] = true
	return nil
}

// verifyScript stores the commit object of standard input in a new repository
// and checks its signature: repository commit. It prints the object's id.
const verifyScript = `set -u
export LC_ALL=C
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_NAMESPACE
format=
[ "${#2}" = 40 ] || format=--object-format=sha256
git init -q --bare --template= $format "$1" || exit
id=$(git --git-dir="$1" hash-object -t commit -w --stdin) || exit
echo "$id"
[ "$id" = "$2" ] || exit 0
git --git-dir="$1" verify-commit "$2"
`

func verifyIn(ctx context.Context, dir, commit string, object []byte) (string, error) {
	var out bytes.Buffer
	cmd := shell(verifyScript, dir, commit)
	cmd.Stdin, cmd.Stdout = bytes.NewReader(object), &out
	err := here{}.Run(ctx, cmd)
	return out.String(), err
}
