package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// A Local says which image of the operator's machine is meant.
type Local struct {
	// Name is what the image is called: by the operator's engine, and on the
	// hosts, there without its registry and its tag.
	Name string

	// Archive is the path of a tar archive with one image, as "docker image
	// save" or "podman image save" write it, or of an OCI layout; it may be
	// compressed with gzip. "": the operator's engine has the image, Docker or
	// else Podman, asked by its own program, so that its contexts count.
	Archive string

	// Dir is a folder for what is worth remembering between runs, and for the
	// files of a run, which have no names. "": nothing is remembered, and the
	// system's folder for temporary files.
	Dir string
}

// programs are those of the engines that the operator may have.
func programs() []string { return []string{"docker", "podman"} }

// askLimit is how long an engine may take to say that it has an image.
const askLimit = 30 * time.Second

// find returns the program of the engine that has the image, and the image's
// id there.
func (l Local) find(ctx context.Context) (program, id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var said []string
	for _, program := range programs() {
		var out, words bytes.Buffer
		cmd := command(ctx, &words, program, "image", "inspect", "--format", "{{.Id}}", l.Name)
		cmd.Stdout = &out
		switch err := cmd.Run(); {
		case err == nil:
			return program, strings.TrimSpace(out.String()), nil
		case errors.Is(err, exec.ErrNotFound):
			said = append(said, program+" is not installed")
		default:
			said = append(said, fmt.Sprintf("%s says %s", program, cmp.Or(lastLine(words.String()), err.Error())))
		}
		if ctx.Err() != nil {
			return "", "", context.Cause(ctx)
		}
	}
	return "", "", &plugins.Error{
		Kind: plugins.NotFound,
		Err:  fmt.Errorf("no engine of this machine has it (%s): build it here, or name its archive with image.archive", strings.Join(said, "; ")),
	}
}

// save writes the image into a file.
func (l Local) save(ctx context.Context, program, id string) (*os.File, error) {
	f, err := spool(l.Dir)
	if err != nil {
		return nil, err
	}
	var words bytes.Buffer
	cmd := command(ctx, &words, program, "image", "save", id)
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, errors.Join(fmt.Errorf("%s image save: %w: %s", program, err, lastLine(words.String())), f.Close())
	}
	return f, nil
}

// command runs a program of the operator's, in the operator's environment.
func command(ctx context.Context, words *bytes.Buffer, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = words
	cmd.WaitDelay = time.Second
	return cmd
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
