package source

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/teal-deploy/teal/plugins"
)

// Prune removes the folders of releases below dir/releases that are not in
// keep. It runs as the user that become leads to, because an app may have
// written files as another one. An empty keep is refused with kind Invalid:
// the release that serves is always among those kept.
func Prune(ctx context.Context, h plugins.Host, dir string, keep []string) error {
	fail := func(kind plugins.Kind, err error) error {
		return &plugins.Error{Op: "prune releases", Host: h.String(), Kind: kind, Err: err}
	}
	if !filepath.IsAbs(dir) {
		return fail(plugins.Invalid, errors.New("the folder is not absolute"))
	}
	if len(keep) == 0 {
		return fail(plugins.Invalid, errors.New("no release to keep"))
	}
	cmd := shell(pruneScript, append([]string{dir}, keep...)...)
	cmd.Become = true
	if err := h.Run(ctx, cmd); err != nil {
		return fail(plugins.KindOf(err), err)
	}
	return nil
}

// Remove removes the folder of one release below dir/releases, whole or not.
// One that is not there is no error.
func Remove(ctx context.Context, h plugins.Host, dir, release string) error {
	r := Request{Dir: dir, Release: release}
	if !filepath.IsAbs(dir) || !releaseID.MatchString(release) {
		return &plugins.Error{Op: "remove code", Host: h.String(), Kind: plugins.Invalid, Err: errors.New("no such folder can be")}
	}
	cmd := shell(`rm -rf -- "$1"`, r.folder())
	cmd.Become = true
	if err := h.Run(ctx, cmd); err != nil {
		return &plugins.Error{Op: "remove code", Host: h.String(), Kind: plugins.KindOf(err), Err: err}
	}
	return nil
}
