package orchestrator

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/plugins"
)

func TestRedactorBlacksOutSecrets(t *testing.T) {
	r := newRedactor([]string{"hunter22", "hunter22-longer", "line one\nline two", "abc"})
	for in, want := range map[string]string{
		"password is hunter22!":    "password is [redacted]!",
		"it is hunter22-longer":    "it is [redacted]",
		"printed: line two":        "printed: [redacted]",
		"abc is too short to hide": "abc is too short to hide",
	} {
		if got := r.text(in); got != want {
			t.Errorf("text(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRedactedErrorKeepsItsKindAndNotItsText(t *testing.T) {
	cause := &plugins.Error{Op: "login with hunter22", Kind: plugins.Denied, Err: errors.New("no")}
	err := newRedactor([]string{"hunter22"}).err(fmt.Errorf("pull: %w", cause))
	if !errors.Is(err, plugins.Denied) {
		t.Error("the kind is lost")
	}
	var inner *plugins.Error
	if errors.As(err, &inner) || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("the secret can be had from %v", err)
	}
	if plain := errors.New("nothing secret"); !errors.Is(newRedactor([]string{"hunter22"}).err(plain), plain) {
		t.Error("an error without a secret is not left alone")
	}
}

func TestMarkChangesWithAnySecret(t *testing.T) {
	a := mark("shop", map[string]string{"A": "1", "B": "2"})
	for _, other := range []map[string]string{{"A": "1", "B": "3"}, {"A": "1"}, {"A": "2", "B": "1"}, nil} {
		if mark("shop", other) == a {
			t.Errorf("mark of %v equals that of other values", other)
		}
	}
	if mark("shop", map[string]string{"B": "2", "A": "1"}) != a {
		t.Error("mark depends on the order")
	}
}

func TestLineWriterEmitsLines(t *testing.T) {
	var got []string
	w := &lineWriter{emit: func(l string) { got = append(got, l) }}
	for _, p := range []string{"one\ntw", "o\r\n\n", strings.Repeat("x", maxLine+5), "end"} {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	w.flush()
	if len(got) != 4 || got[0] != "one" || got[1] != "two" || len(got[2]) != maxLine || got[3] != "xxxxxend" {
		t.Errorf("lines = %.40q…", got)
	}
}
