package remote_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

func TestRunAgainstSSHD(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	var stdout, stderr bytes.Buffer
	err := c.Run(t.Context(), &plugins.Command{
		Args:   []string{"sh", "-c", `cat; echo "$1" >&2; exit 3`, "teal", "it's $HOME"},
		Stdin:  strings.NewReader("hello\n"),
		Stdout: &stdout, Stderr: &stderr,
	})
	want := &plugins.ExitError{
		Host: "web1", Code: 3, Stderr: []byte("it's $HOME\n"),
		Args: []string{"sh", "-c", `cat; echo "$1" >&2; exit 3`, "teal", "it's $HOME"},
	}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Error(diff)
	}
	if stdout.String() != "hello\n" {
		t.Errorf("stdout %q", stdout.String())
	}
}
