package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/teal-deploy/teal/plugins"
)

// A tree is a commit in a mirror, to be written at a folder of the release.
type tree struct {
	repository repository
	mirror     string
	commit     string
	prefix     string // "" for the repository itself, else "path/of/submodule"
}

// fetchOnHost lets the host's git do it all.
func (s *Source) fetchOnHost(ctx context.Context, h plugins.Host, r Request) error {
	trees, err := s.gather(ctx, h, r.folder(), s.stamp(r.Commit), r.Commit, r.Dir+"/mirror.git", r.Dir+"/modules")
	if err != nil || trees == nil {
		return err
	}
	err = s.write(ctx, h, r, trees)
	if !errors.Is(err, errCorrupt) {
		return err
	}
	// The mirrors hold nothing that the git server does not.
	for _, t := range trees {
		if err := h.Run(ctx, &plugins.Command{Args: []string{"rm", "-rf", "--", t.mirror}}); err != nil {
			return err
		}
	}
	if trees, err = s.gather(ctx, h, "", "", r.Commit, r.Dir+"/mirror.git", r.Dir+"/modules"); err != nil {
		return err
	}
	return s.write(ctx, h, r, trees)
}

// gather brings the commit, and those of its submodules, into mirrors on on.
// It returns no trees when the folder is complete already.
func (s *Source) gather(ctx context.Context, on runner, folder, stamp, commit, mirror, modules string) ([]tree, error) {
	top := tree{repository: s.repository, mirror: mirror, commit: commit}
	ref := s.code.Ref
	if wholeCommit.MatchString(ref) {
		ref = ""
	}
	var object bytes.Buffer
	err := s.ask(ctx, on, top.repository, fetchScript, &object, folder, stamp, mirror, top.repository.address, commit, ref)
	if err != nil || folder != "" && object.String() == "complete\n" {
		return nil, err
	}
	if s.code.Signed {
		if err := s.verify(ctx, commit, object.Bytes()); err != nil {
			return nil, err
		}
	}
	if !s.code.Submodules {
		return []tree{top}, nil
	}
	return s.descend(ctx, on, top, modules, nil)
}

// write makes the release's folder out of trees.
func (s *Source) write(ctx context.Context, h plugins.Host, r Request, trees []tree) error {
	args := []string{r.folder(), s.stamp(r.Commit), s.code.Subdir}
	for _, t := range trees {
		args = append(args, t.mirror, t.commit, t.prefix)
	}
	_, err := run(ctx, h, s.repository, writeScript, args...)
	return err
}

// mirrorName names the mirror of a repository that is not the app's only one.
func mirrorName(r repository) string {
	sum := sha256.Sum256([]byte(r.address))
	return hex.EncodeToString(sum[:10]) + ".git"
}
