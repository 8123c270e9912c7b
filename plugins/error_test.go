package plugins_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/teal-deploy/teal/plugins"
)

func TestErrorSaysWhatWhereWhy(t *testing.T) {
	exit := &plugins.ExitError{Host: "web1", Args: []string{"nginx", "-t"}, Code: 1, Stderr: []byte("one\nbroken\n")}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&plugins.Error{Host: "web1", Op: "pull shop:1", Kind: plugins.NotFound}, "web1: pull shop:1: not found"},
		{&plugins.Error{Op: "pull shop:1", Kind: plugins.Denied, Err: errors.New("no login")}, "pull shop:1: no login"},
		{&plugins.Error{Kind: plugins.Lost}, "lost"},
		{exit, "web1: nginx exited with code 1: broken"},
		{&plugins.Error{Host: "web1", Op: "check", Err: exit}, "web1: check: nginx exited with code 1: broken"},
		{&plugins.Error{Host: "web2", Op: "check", Err: exit}, "web2: check: web1: nginx exited with code 1: broken"},
		{&plugins.ExitError{Host: "web1", Code: 3}, "web1: command exited with code 3"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestErrorIsItsKind(t *testing.T) {
	err := fmt.Errorf("deploy: %w", &plugins.Error{Op: "x", Kind: plugins.Conflict, Err: errors.New("taken")})
	if !errors.Is(err, plugins.Conflict) || errors.Is(err, plugins.Denied) || plugins.KindOf(err) != plugins.Conflict {
		t.Errorf("%v is of kind %q", err, plugins.KindOf(err))
	}
	if k := plugins.KindOf(errors.New("plain")); k != "" {
		t.Errorf("a plain error has kind %q", k)
	}
}
