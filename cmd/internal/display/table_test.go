package display

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	header := []string{"HOST", "APP", "SERVING"}
	rows := [][]string{
		{"web1", "shop", "42, since yesterday"},
		{"漢字.example.com", "a\x1b[2Jb"},
		{"🚀", "", "41", "one too many"},
	}
	tests := []struct {
		name  string
		width int
		want  string
	}{
		{"without a limit", 0, `
HOST              APP        SERVING
web1              shop       42, since yesterday
漢字.example.com  a\x1b[2Jb
🚀                           41
`},
		{"shortened to a terminal", 36, `
HOST         APP        SERVING
web1         shop       42, since y…
漢字.examp…  a\x1b[2Jb
🚀                      41
`},
		{"not shortened beyond reading", 10, `
HOST    APP     SERVI…
web1    shop    42, s…
漢字.…  a\x1b…
🚀              41
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := (table{header: header, rows: rows, width: tt.width}).write(&out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, "\n"+out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTableReturnsErrors(t *testing.T) {
	full := errors.New("disk full")
	if err := Table(failing{full}, []string{"A"}, nil); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if err := Summary(failing{full}, result()); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	var out bytes.Buffer
	if err := Table(&out, nil, nil); err != nil || strings.TrimSpace(out.String()) != "" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestTableFitsTheTerminalItIsWrittenTo(t *testing.T) {
	terminal := openTerminal(t, 20, 10)
	if err := Table(terminal.slave, []string{"A", "B"}, [][]string{{"short", strings.Repeat("long", 20)}}); err != nil {
		t.Fatal(err)
	}
	want := "A      B\r\nshort  longlonglong…\r\n"
	if diff := cmp.Diff(want, terminal.close(t)); diff != "" {
		t.Error(diff)
	}
}
