//go:build linux

package lab

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSetGivesAKeyItsValue(t *testing.T) {
	const text = `# The shop.
app = "shop"
hosts = "web"

[container]
port = 8080

[test]
within = "20s"
checks = [
  { http = "/up" },
]
stable = "1s"
`
	tests := []struct {
		name, key, value string
		from, to         string // what changes in the text; from is there once
	}{
		{"of the file", "hosts", `"all"`, `hosts = "web"`, `hosts = "all"`},
		{"of the file, new", "runtime", `"podman"`, "# The shop.\n", "runtime = \"podman\"\n# The shop.\n"},
		{"of a table", "container.port", "80", "port = 8080", "port = 80"},
		{"of a table, new", "container.replicas", "2", "[container]\n", "[container]\nreplicas = 2\n"},
		{"of a new table", "rollout.canary", `["10%", "50%"]`, "stable = \"1s\"\n", "stable = \"1s\"\n\n[rollout]\ncanary = [\"10%\", \"50%\"]\n"},
		{"over several lines", "test.checks", "[{ tcp = 1 }]", "checks = [\n  { http = \"/up\" },\n]\n", "checks = [{ tcp = 1 }]\n"},
		{"taken away", "container.port", "", "port = 8080\n", ""},
		{"taken away, several lines", "test.checks", "", "checks = [\n  { http = \"/up\" },\n]\n", ""},
		{"the last", "test.stable", `"2s"`, `stable = "1s"`, `stable = "2s"`},
		{"of another table", "test.port", "1", "[test]\n", "[test]\nport = 1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(text, tt.from) != 1 {
				t.Fatalf("%q is there %d times", tt.from, strings.Count(text, tt.from))
			}
			want := strings.Replace(text, tt.from, tt.to, 1)
			got := Set(tt.key, tt.value)(text)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(got, Set(tt.key, tt.value)(got)); diff != "" && tt.value != "" {
				t.Errorf("a second time changes it again: %s", diff)
			}
		})
	}
}

func TestAppFileIsThatOfTheLab(t *testing.T) {
	tests := []struct {
		name    string
		lab     *Lab
		changes []func(string) string
		want    []string // lines
		lacks   []string
	}{
		{"hosts with nginx", twoHosts(), nil, []string{`type = "nginx"`, `image-is "10.46.3.2:5000/shop:${version}"`}, []string{"hosts = \"lb\""}},
		{"hosts with HAProxy", withProxy(HAProxy), []func(string) string{nil}, []string{`type = "haproxy"`}, []string{`"nginx"`, "hosts = \"lb\""}},
		{
			"load balancers", balanced(HAProxy),
			[]func(string) string{Set("container.replicas", "2"), Set("rollout.canary", `["10%"]`)},
			[]string{`type = "haproxy"`, `hosts = "lb"`, `hosts = "web"`, "replicas = 2", "[rollout]", `canary = ["10%"]`},
			nil,
		},
		{
			"gRPC", balanced(Nginx),
			[]func(string) string{Speak("grpc")},
			[]string{`protocol = "grpc"`, `env = { SHOP_PROTOCOL = "grpc" }`, `checks = [{ tcp = 8080 }]`},
			[]string{"verify", "/up"},
		},
		{
			"HTTP, said in so many words", twoHosts(),
			[]func(string) string{Speak("http")},
			[]string{`protocol = "http"`, `verify = { http = "http://127.0.0.1/up", status = [200] }`},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.lab.config.Dir = t.TempDir()
			path, err := tt.lab.AppFile(tt.changes...)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace("\n"+string(b), "\nname = ", "\nimage-is ", 1)
			for _, want := range tt.want {
				if !strings.Contains(text, "\n"+want+"\n") {
					t.Errorf("the line %q is missing:\n%s", want, b)
				}
			}
			for _, lack := range tt.lacks {
				if strings.Contains(text, lack) {
					t.Errorf("%q is in it:\n%s", lack, b)
				}
			}
		})
	}
}

func withProxy(kind string) *Lab {
	l := twoHosts()
	l.config.Proxy = kind
	return l
}
