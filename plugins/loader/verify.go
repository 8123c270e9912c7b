package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// program returns the path of the plugin's program, once it may be trusted.
func program(spec Spec) (string, error) {
	if len(spec.Cmd) == 0 {
		return "", failed(spec, plugins.Invalid, errors.New("no program"))
	}
	path, err := executable(spec.Cmd[0])
	if err != nil {
		return "", failed(spec, plugins.NotFound, err)
	}
	if path == self {
		return path, nil // whoever could have changed it is running already
	}
	file, err := os.Open(path)
	if err != nil {
		return "", failed(spec, plugins.Denied, err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", failed(spec, plugins.Denied, err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return "", failed(spec, plugins.Denied, fmt.Errorf(
			"%s is writable by others than its owner (mode %04o): chmod go-w %s", path, mode, path))
	}
	if spec.SHA256 == "" {
		return path, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", failed(spec, plugins.Denied, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); !strings.EqualFold(got, spec.SHA256) {
		return "", failed(spec, plugins.Denied, fmt.Errorf("%s has the SHA-256 sum %s, not %s", path, got, spec.SHA256))
	}
	return path, nil
}
