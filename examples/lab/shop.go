//go:build linux

package lab

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/examples/shop"
)

// shopRepository is the name of the shop's repository on the services host.
const shopRepository = "shop"

// errNoServices says that the lab was started without a services host.
var errNoServices = errors.New("the lab has no services host")

// RepositoryURL returns the URL of a repository of the services host, by which
// the machine and all hosts reach it.
func (l *Lab) RepositoryURL(name string) string {
	return fmt.Sprintf("ssh://%s@%s%s/%s.git", gitUser, addrAt(l.network, servicesAddr), gitHome, name)
}

// CreateRepository creates an empty repository on the services host, with main
// as its branch. It may be there already.
func (l *Lab) CreateRepository(ctx context.Context, name string) error {
	if l.services == nil {
		return errNoServices
	}
	_, err := l.services.Exec(
		ctx, "setpriv", "--reuid", gitUser, "--regid", gitUser, "--init-groups",
		"env", "HOME="+gitHome, "git", "init", "--quiet", "--bare", "--initial-branch=main", gitHome+"/"+name+".git",
	)
	return err
}

// PublishRelease commits a release of the shop to its repository, on the
// branch main and with the tag v<version>, and returns the commit. change, when
// it is not nil, edits the code in a folder before; the code is that of the
// former release.
func (l *Lab) PublishRelease(ctx context.Context, version string, change func(dir string) error) (string, error) {
	dir := l.path("shop-code")
	if err := l.checkout(ctx, dir); err != nil {
		return "", fmt.Errorf("publish release %s: %w", version, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "release"), []byte(version+"\n"), 0o600); err != nil {
		return "", err
	}
	if change != nil {
		if err := change(dir); err != nil {
			return "", fmt.Errorf("publish release %s: %w", version, err)
		}
	}
	for _, argv := range [][]string{
		{"add", "--all"},
		{"commit", "--quiet", "--allow-empty", "--message", "Release " + version},
		{"tag", "v" + version},
		{"push", "--quiet", "--atomic", "origin", "main", "v" + version},
	} {
		if _, err := l.git(ctx, dir, argv...); err != nil {
			return "", fmt.Errorf("publish release %s: %w", version, err)
		}
	}
	commit, err := l.git(ctx, dir, "rev-parse", "HEAD")
	return strings.TrimSpace(commit), err
}

// checkout makes the working copy of the shop's code at its first use.
func (l *Lab) checkout(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := l.CreateRepository(ctx, shopRepository); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := shop.WriteCode(dir); err != nil {
		return err
	}
	if _, err := l.git(ctx, dir, "init", "--quiet", "--initial-branch=main"); err != nil {
		return err
	}
	_, err := l.git(ctx, dir, "remote", "add", "origin", l.RepositoryURL(shopRepository))
	return err
}

// git runs git in a folder, with the lab's key and without the settings of
// whoever runs the lab.
func (l *Lab) git(ctx context.Context, dir string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", argv...)
	cmd.Dir = dir
	cmd.Env = append(
		append(os.Environ(), l.Env()...),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=lab", "GIT_AUTHOR_EMAIL=lab@example.com",
		"GIT_COMMITTER_NAME=lab", "GIT_COMMITTER_EMAIL=lab@example.com",
	)
	return output(cmd, "the machine", "git "+argv[0])
}

// PushImage builds the shop's image on the first host with an engine, pushes it
// to the registry and returns its name there. Images of two versions have
// different digests. The working directory must be inside the module.
func (l *Lab) PushImage(ctx context.Context, version string) (string, error) {
	if l.services == nil {
		return "", errNoServices
	}
	i := slices.IndexFunc(l.hosts, func(h *Host) bool { return h.engine() != NoEngine })
	if i < 0 {
		return "", errors.New("no host of the lab has an engine to build an image with")
	}
	push := l.pushByDocker
	if l.hosts[i].engine() != Docker {
		push = l.pushByPodman
	}
	name := l.Registry().String() + "/shop:" + version
	if err := push(ctx, l.hosts[i], name, "release="+version); err != nil {
		return "", fmt.Errorf("push image %s: %w", version, err)
	}
	return name, nil
}

func (l *Lab) pushByDocker(ctx context.Context, h *Host, name, label string) error {
	dir := l.path("shop-image")
	if err := writeImage(ctx, dir); err != nil {
		return err
	}
	if _, err := l.Docker(ctx, h, "build", "--quiet", "--label", label, "--tag", name, dir); err != nil {
		return err
	}
	_, err := l.Docker(ctx, h, "push", "--quiet", name)
	return err
}

// pushByPodman lets root's Podman build, whoever deploys to the host, and leaves
// none of the image there: Podman would know it by digests that no registry has.
func (l *Lab) pushByPodman(ctx context.Context, h *Host, name, label string) error {
	const dir = "/root/shop-image"
	if err := writeImage(ctx, h.root()+dir); err != nil {
		return err
	}
	push := []string{"podman", "push", "--quiet", name}
	if user := l.config.RegistryUser; user != "" {
		push = append(push, "--creds", user+":"+l.config.RegistryPassword)
	}
	for _, argv := range [][]string{
		{"podman", "build", "--quiet", "--isolation", "chroot", "--label", label, "--tag", name, dir},
		push,
		{"podman", "rmi", "--force", name},
	} {
		if _, err := h.Exec(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}

// writeImage writes the context of the shop's image, unless it is there.
func writeImage(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return shop.WriteImage(ctx, dir)
}

// Docker runs the machine's docker program against the engine of a host and
// returns what it wrote to standard output. It is logged in to the registry.
func (l *Lab) Docker(ctx context.Context, h *Host, argv ...string) (string, error) {
	config := l.path("docker")
	if err := l.login(config); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "docker", argv...)
	cmd.Env = append(
		os.Environ(),
		"DOCKER_HOST=unix:///proc/"+strconv.Itoa(h.PID())+"/root/run/docker.sock",
		"DOCKER_CONFIG="+config,
		"DOCKER_BUILDKIT=0", // the engine's own builder: nothing to download
	)
	return output(cmd, h.Name, "docker "+argv[0])
}

// login writes the docker program's configuration.
func (l *Lab) login(dir string) error {
	auths := map[string]any{}
	if user := l.config.RegistryUser; user != "" {
		secret := base64.StdEncoding.EncodeToString([]byte(user + ":" + l.config.RegistryPassword))
		auths[l.Registry().String()] = map[string]string{"auth": secret}
	}
	b, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}
