package spec

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFlagsMakeAnApp(t *testing.T) {
	f, err := FromFlags(AdHoc{
		App: "shop", Image: "shop:${version}", Port: 8080, HTTP: "/up", Proxy: "nginx", Listen: []string{"80", "10.0.0.1:81"},
		Names: []string{"shop.example.com"}, Env: []string{"A=1", "B=x=y ${region}", "C="}, Volumes: []string{"data:/data"},
		Command: []string{"bin/web", "--fast"}, Memory: "64m", Verify: "http://shop.example.com/", Upstream: "up", Pull: "missing",
		Runtime: "docker", Protocol: "http", Replicas: 2,
	}, Options{Set: map[string]string{"region": "eu"}})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Name = "shop"
	want.Image = Image{Name: "shop:42", Pull: "missing", PullParallel: 16}
	want.Container.Port, want.Container.Protocol, want.Container.Replicas = 8080, "http", 2
	want.Container.Command = []string{"bin/web", "--fast"}
	want.Container.Env = map[string]string{"A": "1", "B": "x=y eu", "C": ""}
	want.Container.Volumes = []Volume{{Source: "data", Target: "/data"}}
	want.Container.Memory = 64 << 20
	want.Test.Checks = []Check{{HTTP: "/up"}}
	want.Proxy = &Proxy{
		Type: "nginx", Upstream: "up", Verify: &Verify{HTTP: "http://shop.example.com/", Status: []int{200}},
		Site: &Site{
			Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("10.0.0.1:81")},
			Names:  []string{"shop.example.com"},
		},
	}
	if diff := cmp.Diff(want, resolve(t, f, map[string]string{"version": "42"}), equal()); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	if !f.Uses("version", "image.name") || f.Path() != "" || f.Dir() != "." {
		t.Errorf("uses, path %q, dir %q", f.Path(), f.Dir())
	}
}

func TestProblemsOfFlagsNameTheFlag(t *testing.T) {
	tests := []struct {
		name  string
		flags AdHoc
		opts  Options
		want  string
	}{
		{
			"nothing given",
			AdHoc{},
			Options{},
			"--app: is required\n  hint: give the app a name, as shop\n" +
				"--image: is required\n  hint: say which image, as registry.example.com/shop:${version}",
		},
		{
			"a port alone",
			AdHoc{App: "shop", Image: "shop", Port: 80},
			Options{},
			"--port: a port needs a proxy in front of it\n  hint: set --proxy to \"nginx\" or \"haproxy\", or leave the port out: the app is a worker then",
		},
		{
			"a proxy alone",
			AdHoc{App: "shop", Image: "shop", Proxy: "nginx"},
			Options{},
			"--proxy: a proxy needs a port of the container\n  hint: set --port, or leave the proxy out: the app is a worker then",
		},
		{
			"wrong values",
			AdHoc{
				App: "-x", Image: "a b", Port: -1, Proxy: "apache", HTTP: "up", Listen: []string{"x"}, Env: []string{"SECRET", "1=2", "A=1", "A=2"},
				Volumes: []string{"data"}, Memory: "x", Pull: "push",
			},
			Options{Environment: "staging"},
			`--environment: needs an app file
  hint: leave it out, or describe the app in teal.toml
--env: has no '='
  hint: write NAME=value
--env: names "A" twice
  hint: keep one of the two
--memory: "x" is not a size
  hint: write it like "512m" or "2g"
--port: -1 is out of range
  hint: between 0 and 65535
--volume: "data" is not a volume
  hint: write "name:/path" or "/path/on/host:/path", with :ro behind it when the app shall only read
--listen: "x" is not an address to listen on
  hint: write a port, as 80, or an address with a port, as "10.0.0.1:80" or "[::1]:80"
--app: "-x" is not a name for an app
  hint: up to 40 of a-z, 0-9 and '-', not beginning with '-'
--image: "a b" is not an image: its path is wrong
  hint: a path is a-z, 0-9 and between these '.', '_', '-' and '/'
--pull: "push" is not one of always, missing, never, upload
  hint: use always, missing, never or upload
--env: "1" is not a name for an environment variable
  hint: letters, digits and '_', not beginning with a digit
--http: "up" is not the path of a request
  hint: begin it with '/', as "/up"
--proxy: "apache" is not one of nginx, haproxy
  hint: use nginx or haproxy`,
		},
		{
			"what does not fit tcp",
			AdHoc{
				App: "shop", Image: "shop", Port: 80, Proxy: "nginx", Protocol: "tcp", Replicas: 65, HTTP: "/up", Listen: []string{"80"},
				Names: []string{"shop.example.com"}, Verify: "http://shop.example.com/up",
			},
			Options{},
			`--protocol: nginx does not switch tcp: its stream module reads no file for a connection, so a switch would be a reload, which loses connections
  hint: set --proxy to "haproxy"
--verify: asks over HTTP, and the app speaks tcp
  hint: leave it out: test.checks ask the app itself
--server-name: a tcp connection does not say which name it is for
  hint: leave it out
--replicas: must be between 1 and 64, and is 65
  hint: that many run on each host
--http: asks over HTTP/1.1, and the app speaks tcp
  hint: write { tcp = 80 } or { exec = ["…"] }`,
		},
		{
			"a name of --set",
			AdHoc{App: "shop", Image: "shop"},
			Options{Set: map[string]string{"a b": "1", "x": "\x00"}},
			"--set: \"a b\" is not a name for a variable\n  hint: letters, digits and '_', not beginning with a digit\n" +
				"--set: the value of x holds a NUL character",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := FromFlags(test.flags, test.opts)
			if err == nil {
				t.Fatal("nothing is wrong")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamedIsAnAppOfWhichOnlyTheNameIsKnown(t *testing.T) {
	f, err := Named("shop", "")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Name = "shop"
	if diff := cmp.Diff(want, resolve(t, f, nil), equal()); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	if !f.NameOnly() {
		t.Error("it is not known that only the name is known")
	}
	if f, err := Named("shop", "podman"); err != nil || f.App().Runtime != "podman" {
		t.Errorf("its runtime is not known: %v", err)
	}
	for _, names := range [][2]string{{"../shop", ""}, {"shop", "../podman"}} {
		if _, err := Named(names[0], names[1]); err == nil {
			t.Errorf("%q were taken", names)
		}
	}
	if f, err := FromFlags(AdHoc{App: "shop", Image: "shop"}, Options{}); err != nil || f.NameOnly() {
		t.Errorf("flags with an image make an app: %v", err)
	}
}
