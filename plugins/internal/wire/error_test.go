package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/teal-deploy/teal/plugins"
)

// roundTrip sends err through the bytes of a message.
func roundTrip(t *testing.T, err error) error {
	t.Helper()
	b, merr := proto.Marshal(&Done{Error: encodeError(err)})
	if merr != nil {
		t.Fatal(merr)
	}
	var d Done
	if merr := proto.Unmarshal(b, &d); merr != nil {
		t.Fatal(merr)
	}
	return decodeError(d.GetError())
}

func TestErrorSurvivesTheHop(t *testing.T) {
	exit := &plugins.ExitError{Host: "web1", Args: []string{"rm", "--", "a b"}, Code: 3, Stderr: []byte("no\xff\x00\n")}
	classified := &plugins.Error{Op: "pull shop:1", Host: "web1", Kind: plugins.NotFound, Err: errors.New("manifest unknown")}
	for _, tt := range []struct {
		name string
		err  error
		is   []error
		not  []error
	}{
		{"nil", nil, nil, nil},
		{"plain", errors.New("plain"), nil, []error{plugins.NotFound, context.Canceled}},
		{"classified", classified, []error{plugins.NotFound}, []error{plugins.Denied}},
		{"without a cause", &plugins.Error{Op: "stop", Kind: plugins.Lost}, []error{plugins.Lost}, nil},
		{"nothing but a kind", plugins.Unsupported, []error{plugins.Unsupported}, nil},
		{"wrapped", fmt.Errorf("on web1: %w", classified), []error{plugins.NotFound}, nil},
		{"an exit code inside", &plugins.Error{Op: "exec", Kind: plugins.Invalid, Err: fmt.Errorf("hook: %w", exit)}, []error{plugins.Invalid}, nil},
		{"joined", errors.Join(classified, context.Canceled, io.EOF), []error{plugins.NotFound, context.Canceled}, []error{context.DeadlineExceeded}},
		{"two levels", &plugins.Error{Kind: plugins.Lost, Err: &plugins.Error{Kind: plugins.Denied}}, []error{plugins.Lost, plugins.Denied}, nil},
		{"a setting", &plugins.SettingError{Path: []string{"store", "path"}, Err: classified}, []error{plugins.Invalid, plugins.NotFound}, nil},
		{"the settings as a whole", &plugins.SettingError{}, []error{plugins.Invalid}, nil},
		{"deadline", fmt.Errorf("list: %w", context.DeadlineExceeded), []error{context.DeadlineExceeded}, []error{context.Canceled}},
		{"cancelled", context.Canceled, []error{context.Canceled}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := roundTrip(t, tt.err)
			if (got == nil) != (tt.err == nil) {
				t.Fatalf("got %v, want %v", got, tt.err)
			}
			if tt.err != nil && got.Error() != strings.ToValidUTF8(tt.err.Error(), "\uFFFD") {
				t.Errorf("it prints %q, not %q", got, tt.err)
			}
			for _, target := range tt.is {
				if !errors.Is(got, target) {
					t.Errorf("%v is no longer %v", got, target)
				}
			}
			for _, target := range tt.not {
				if errors.Is(got, target) {
					t.Errorf("%v has become %v", got, target)
				}
			}
			if plugins.KindOf(got) != plugins.KindOf(tt.err) {
				t.Errorf("its kind is %q, not %q", plugins.KindOf(got), plugins.KindOf(tt.err))
			}
		})
	}
}

func TestEveryKindSurvivesTheHop(t *testing.T) {
	for _, kind := range []plugins.Kind{
		plugins.NotFound, plugins.Exists, plugins.Conflict, plugins.Invalid,
		plugins.Denied, plugins.Unavailable, plugins.Unsupported, plugins.Lost,
	} {
		err := &plugins.Error{Op: "op", Host: "web1", Kind: kind, Err: errors.New("cause")}
		var got *plugins.Error
		if !errors.As(roundTrip(t, err), &got) || got.Op != err.Op || got.Host != err.Host || got.Kind != kind || got.Err.Error() != "cause" {
			t.Errorf("%#v became %#v", err, got)
		}
	}
}

func TestExitErrorSurvivesTheHopWhole(t *testing.T) {
	want := &plugins.ExitError{Host: "web1", Args: []string{"sh", "-c", ""}, Code: 255, Stderr: []byte(strings.Repeat("x", 64<<10))}
	var got *plugins.ExitError
	if !errors.As(roundTrip(t, fmt.Errorf("step: %w", want)), &got) {
		t.Fatal("it is no ExitError any more")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrorTextIsBoundedAndValid(t *testing.T) {
	got := roundTrip(t, errors.New(strings.Repeat("x", 1<<20)+"\xff"))
	if len(got.Error()) > maxErrorText+10 {
		t.Errorf("%d bytes", len(got.Error()))
	}
	if got := roundTrip(t, errors.New("bad \xff byte")); got.Error() != "bad \uFFFD byte" {
		t.Errorf("got %q", got)
	}
}

func FuzzErrorText(f *testing.F) {
	f.Add("op", "host", "kind", "text")
	f.Add("\xff", "", "not found", "\x00\n")
	f.Fuzz(func(t *testing.T, op, host, kind, text string) {
		err := &plugins.Error{Op: op, Host: host, Kind: plugins.Kind(kind), Err: errors.New(text)}
		if got := roundTrip(t, err); got == nil || roundTrip(t, got).Error() != got.Error() {
			t.Errorf("a second hop changes %q", got)
		}
	})
}
