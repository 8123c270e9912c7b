package spec

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

const shop = `app = "shop"
hosts = "web"
runtime = "docker"

[image]
name = "registry.example.com/shop:${version}"
pull = "always"
username = "ci"
password = { env = "REGISTRY_PASSWORD" }

[code]
repository = "git@git.example.com:shop.git"
ref = "main"
path = "/srv/app"
subdir = "backend"
submodules = true
via = "host"
identity = ["~/.ssh/deploy_key"]
signed = true

[container]
port = 8080
command = ["bin/web"]
env = { RAILS_ENV = "production", THREADS = "${RAILS_MAX_THREADS}" }
secrets = { DATABASE_URL = { command = ["op", "read", "op://shop/db"] } }
volumes = ["uploads:/srv/app/public/uploads", "/etc/ssl:/etc/ssl:ro"]
memory = "512m"
cpus = 1.5
stop_grace = "10s"

[install]
run = ["bundle install --deployment", "bin/assets"]
once = ["bin/rails db:migrate"]
timeout = "10m"
restart = true

[test]
within = "60s"
interval = "1s"
successes = 2
stable = "3s"
checks = [
  { http = "/up", status = [200, 204], body = "ok", host = "shop.example.com", headers = { X-Check = "1" } },
  { tcp = 8080 },
  { exec = ["bin/selftest"] },
  { engine = true },
]

[proxy]
type = "nginx"
upstream = "shop-app"
verify = { http = "http://shop.example.com/up" }
site = { listen = [80, "10.0.0.1:8080", "[::1]:81"], names = ["shop.example.com", "*.example.org"] }

[drain]
delay = "10s"
max = "1h"

[rollout]
max_failed = 1
max_unreachable = "10%"
on_failure = "stop"

[keep]
releases = 5

[hooks]
before_deploy = ["./notify.sh ${version}"]

[environments.staging]
hosts = "staging"
container.env.RAILS_ENV = "staging"
image.password = { file = "registry" }
drain.max = "20s"

[plugins.wasmtime]
path = "/usr/local/lib/teal/teal-runtime-wasmtime"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
protocol = "grpc"
settings = { opt_level = 2, deep = { flags = ["a", { b = 1.5 }] } }
`

// wantShop is what shop says for a host with five threads.
func wantShop() App {
	return App{
		Name: "shop", Hosts: "web", Runtime: "docker",
		Image: Image{
			Name: "registry.example.com/shop:42", Pull: "always", PullParallel: 16, Username: "ci",
			Password: &Secret{Env: "REGISTRY_PASSWORD"},
		},
		Code: &Code{
			Repository: "git@git.example.com:shop.git", Ref: "main", Path: "/srv/app", Subdir: "backend", Submodules: true,
			Via: "host", Identity: []string{"~/.ssh/deploy_key"}, Signed: true,
		},
		Container: Container{
			Port: 8080, Protocol: "http", Replicas: 1, Command: []string{"bin/web"},
			Env:     map[string]string{"RAILS_ENV": "production", "THREADS": "5"},
			Secrets: map[string]Secret{"DATABASE_URL": {Command: []string{"op", "read", "op://shop/db"}}},
			Volumes: []Volume{
				{Source: "uploads", Target: "/srv/app/public/uploads"},
				{Source: "/etc/ssl", Target: "/etc/ssl", ReadOnly: true},
			},
			Memory: 512 << 20, CPUs: 1.5, StopGrace: 10 * time.Second,
		},
		Install: Install{
			Run: []string{"bundle install --deployment", "bin/assets"}, Once: []string{"bin/rails db:migrate"},
			Timeout: 10 * time.Minute, Restart: true,
		},
		Test: Test{
			Within: time.Minute, Interval: time.Second, Timeout: 5 * time.Second, Successes: 2, Stable: 3 * time.Second,
			Checks: []Check{
				{HTTP: "/up", Status: []int{200, 204}, Body: "ok", Host: "shop.example.com", Headers: map[string]string{"X-Check": "1"}},
				{TCP: 8080},
				{Exec: []string{"bin/selftest"}},
				{Engine: true},
			},
		},
		Proxy: &Proxy{
			Type: "nginx", Upstream: "shop-app",
			Verify: &Verify{HTTP: "http://shop.example.com/up", Status: []int{200}},
			Site: &Site{
				Listen: []netip.AddrPort{
					netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("[::1]:81"),
				},
				Names: []string{"shop.example.com", "*.example.org"},
			},
		},
		Drain:   Drain{Delay: 10 * time.Second, Max: time.Hour},
		Rollout: Rollout{Strategy: "together", MaxFailed: Limit{Count: 1}, MaxUnreachable: Limit{Count: 10, Percent: true}, OnFailure: "stop"},
		Keep:    Keep{Releases: 5},
		Hooks:   Hooks{BeforeDeploy: []string{"./notify.sh 42"}},
		Plugins: map[string]Plugin{"wasmtime": {
			Path:   "/usr/local/lib/teal/teal-runtime-wasmtime",
			SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Protocol: "grpc",
			Settings: map[string]any{
				"opt_level": int64(2), "deep": map[string]any{"flags": []any{"a", map[string]any{"b": 1.5}}},
			},
		}},
	}
}

// equal lets cmp look at addresses.
func equal() cmp.Option {
	return cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
}

func load(t *testing.T, src string, opts Options) *File {
	t.Helper()
	f, err := Parse("teal.toml", []byte(src), opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func resolve(t *testing.T, f *File, vars map[string]string) App {
	t.Helper()
	app, err := f.For(vars)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func TestAWholeFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "teal.toml")
	if err := os.WriteFile(path, []byte(shop), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	app := resolve(t, f, map[string]string{"version": "42", "RAILS_MAX_THREADS": "5", "other": "x"})
	if diff := cmp.Diff(wantShop(), app, equal()); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	if f.Path() != path || f.Dir() != filepath.Dir(path) {
		t.Errorf("path %q, dir %q", f.Path(), f.Dir())
	}
}

func TestLoadNamesTheMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "teal.toml"), Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "teal.toml") {
		t.Errorf("got %v", err)
	}
}

func TestDefaults(t *testing.T) {
	tests := []struct {
		name, src string
		want      func(*App)
	}{
		{"a worker has no checks and no proxy", "", func(*App) {}},
		{
			"a port is asked whether it answers", "[container]\nport = 80\n[proxy]\ntype = \"nginx\"\n", func(a *App) {
				a.Container.Port, a.Container.Protocol = 80, "http"
				a.Test.Checks = []Check{{TCP: 80}}
				a.Proxy = &Proxy{Type: "nginx", Upstream: "shop"}
			},
		},
		{
			"no checks when the list is empty", "[container]\nport = 80\n[proxy]\ntype = \"nginx\"\n[test]\nchecks = []\n", func(a *App) {
				a.Container.Port, a.Container.Protocol = 80, "http"
				a.Test.Checks = []Check{}
				a.Proxy = &Proxy{Type: "nginx", Upstream: "shop"}
			},
		},
		{
			"drain.max is at least drain.delay", "[drain]\ndelay = \"20m\"\n", func(a *App) {
				a.Drain = Drain{Delay: 20 * time.Minute, Max: 20 * time.Minute}
			},
		},
		{
			"a canary is watched", "[container]\nport = 80\n[proxy]\ntype = \"nginx\"\n[rollout]\ncanary = [\"5%\"]\n", func(a *App) {
				a.Container.Port, a.Container.Protocol = 80, "http"
				a.Test.Checks = []Check{{TCP: 80}}
				a.Proxy = &Proxy{Type: "nginx", Upstream: "shop"}
				a.Rollout.Canary, a.Rollout.Watch = []int{5}, 10*time.Second
			},
		},
		{
			"code comes through the host", "[code]\nrepository = \"/srv/git/shop.git\"\npath = \"/srv/app\"\n", func(a *App) {
				a.Code = &Code{Repository: "/srv/git/shop.git", Path: "/srv/app", Via: "host"}
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := App{
				Name: "shop", Hosts: "all", Runtime: "docker",
				Image:     Image{Name: "shop:42", Pull: "always", PullParallel: 16},
				Container: Container{Replicas: 1, StopGrace: 10 * time.Second},
				Install:   Install{Timeout: 10 * time.Minute},
				Test:      Test{Within: time.Minute, Interval: time.Second, Timeout: 5 * time.Second, Successes: 2, Stable: 3 * time.Second},
				Drain:     Drain{Delay: 10 * time.Second, Max: 10 * time.Minute},
				Rollout:   Rollout{Strategy: "together", OnFailure: "rollback"},
				Keep:      Keep{Releases: 3},
			}
			test.want(&want)
			f := load(t, "app = \"shop\"\nimage.name = \"shop:42\"\n"+test.src, Options{})
			if diff := cmp.Diff(want, resolve(t, f, nil), equal()); diff != "" {
				t.Errorf("app (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnEnvironmentIsLaidOver(t *testing.T) {
	f := load(t, shop, Options{Environment: "staging"})
	want := wantShop()
	want.Hosts = "staging"
	want.Container.Env["RAILS_ENV"] = "staging"
	want.Image.Password = &Secret{File: "registry"}
	want.Drain.Max = 20 * time.Second
	app := resolve(t, f, map[string]string{"version": "42", "RAILS_MAX_THREADS": "5"})
	if diff := cmp.Diff(want, app, equal()); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
}

const balanced = `app = "shop"
hosts = "web"
image.name = "shop:42"

[container]
port = 9000
protocol = "grpc"
replicas = 3

[proxy]
type = "haproxy"
hosts = "lb:!lb3"
address = "${private_address}"
site = { listen = [443] }

[rollout]
canary = ["1%", "25%", "${most}"]
watch = "1m"
check = ["./canary-ok.sh ${version}"]
sticky = "cookie:connect.sid"
`

func wantBalanced() App {
	app := defaults()
	app.Name, app.Hosts, app.Image.Name = "shop", "web", "shop:42"
	app.Container.Port, app.Container.Protocol, app.Container.Replicas = 9000, "grpc", 3
	app.Test.Checks = []Check{{TCP: 9000}}
	app.Proxy = &Proxy{
		Type: "haproxy", Hosts: "lb:!lb3", Address: "10.0.0.5", Upstream: "shop",
		Site: &Site{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443")}},
	}
	app.Rollout.Canary, app.Rollout.Watch = []int{1, 25, 99}, time.Minute
	app.Rollout.Check = []string{"./canary-ok.sh 42"}
	app.Rollout.Sticky = "cookie:connect.sid"
	return app
}

func TestLoadBalancersAndACanaryAreRead(t *testing.T) {
	f := load(t, balanced, Options{Set: map[string]string{"most": "99%"}})
	if got := f.App().Proxy; got.Hosts != "lb:!lb3" || got.Address != "${private_address}" {
		t.Errorf("before a host is known: %+v", got)
	}
	app := resolve(t, f, map[string]string{"version": "42", "private_address": "10.0.0.5"})
	if diff := cmp.Diff(wantBalanced(), app, equal()); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	_, err := f.For(map[string]string{"version": "42"})
	if err == nil || !strings.HasPrefix(err.Error(), "teal.toml:13:11: proxy.address: ${private_address} is not known") {
		t.Errorf("a host without the variable: %v", err)
	}
}

func TestCommandLineSaysTheCanary(t *testing.T) {
	const plain = "app = \"shop\"\nimage.name = \"shop\"\n[container]\nport = 80\n[proxy]\ntype = \"nginx\"\n"
	const own = plain + "[rollout]\ncanary = [\"50%\"]\nwatch = \"1m\"\n"
	const about = plain + "[rollout]\nsticky = \"address\"\n"
	tests := []struct {
		name, src string
		flag      []string
		want      Rollout
	}{
		{"nothing said", plain, nil, Rollout{}},
		{"the file's own", own, nil, Rollout{Canary: []int{50}, Watch: time.Minute}},
		{"for a file without one", plain, []string{"5%", "25%"}, Rollout{Canary: []int{5, 25}, Watch: 10 * time.Second}},
		{"instead of the file's own", own, []string{"5%"}, Rollout{Canary: []int{5}, Watch: time.Minute}},
		{"for a file that says more about one", about, []string{"5%"}, Rollout{Canary: []int{5}, Watch: 10 * time.Second, Sticky: "address"}},
		{"none, for a file with one", own, []string{"none"}, Rollout{Canary: []int{}, Watch: time.Minute}},
		{"none, for a file without one", plain, []string{"none"}, Rollout{Canary: []int{}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := load(t, test.src, Options{Canary: test.flag})
			test.want.Strategy, test.want.OnFailure = "together", "rollback"
			app := resolve(t, f, nil)
			if diff := cmp.Diff(test.want, app.Rollout); diff != "" {
				t.Errorf("rollout (-want +got):\n%s", diff)
			}
			for i := range app.Rollout.Canary {
				app.Rollout.Canary[i] = 77
			}
			if again := f.App().Rollout; cmp.Diff(test.want, again) != "" {
				t.Error("a caller can change the file")
			}
		})
	}
	if _, err := FromFlags(AdHoc{App: "shop", Image: "shop", Port: 80, Proxy: "nginx"}, Options{Canary: []string{"x"}}); err == nil {
		t.Error("a share that is none was taken with flags")
	}
}

// A record keeps what an app was: what says nothing must leave no trace in it.
func TestJSONOfAWorkerHasNothingOfProxiesAndCanaries(t *testing.T) {
	out, err := json.Marshal(load(t, "app = \"shop\"\nimage.name = \"shop\"\n", Options{Canary: []string{"none"}}).App())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"proxy", "protocol", "canary", "watch", "check", "sticky"} {
		if strings.Contains(string(out), `"`+key+`"`) {
			t.Errorf("%s stands in %s", key, out)
		}
	}
	app := wantBalanced()
	if out, err = json.Marshal(app); err != nil {
		t.Fatal(err)
	}
	var back App
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(app, back, equal()); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

func TestAnEnvironmentMayCompleteTheFile(t *testing.T) {
	const src = "app = \"shop\"\n[environments.staging]\nimage.name = \"shop:1\"\n"
	if app := load(t, src, Options{Environment: "staging"}).App(); app.Image.Name != "shop:1" {
		t.Errorf("got %+v", app)
	}
	if _, err := Parse("teal.toml", []byte(src), Options{}); err == nil {
		t.Error("the file alone is complete")
	}
}

func TestAppIsUnexpanded(t *testing.T) {
	f := load(t, `app = "shop"
hosts = "${where}"
image.name = "shop:${version}"
container.memory = "${memory}"
container.env = { A = "${a}-${where}", B = "$${b}" }
`, Options{Set: map[string]string{"where": "web:lb"}})
	app := f.App()
	got := []any{app.Hosts, app.Image.Name, app.Container.Memory, app.Container.Env["A"], app.Container.Env["B"]}
	want := []any{"web:lb", "shop:${version}", int64(0), "${a}-${where}", "${b}"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	app.Container.Env["A"] = "changed"
	if again := f.App().Container.Env["A"]; again == "changed" {
		t.Error("a caller can change the file")
	}
}

func TestReferencesStandInEveryValue(t *testing.T) {
	f := load(t, `app = "shop"
[image]
name = "${registry}/shop:${version}"
username = "${user}"
password = { file = "secrets/${region}" }
[code]
repository = "git@${git}:shop.git"
ref = "${version}"
path = "/srv/${user}"
[container]
port = "${port}"
command = ["web", "--region", "${region}"]
env = { A = "${a}${a}", "B" = "x $${a} $a $$ ${region}" }
secrets = { S = { command = ["get", "${region}/key"] } }
volumes = ["data-${region}:/data"]
memory = "${mem}m"
cpus = "${cpus}"
stop_grace = "${grace}s"
[test]
checks = [{ http = "/${region}", headers = { X = "${region}" }, status = ["${status}"] }]
[proxy]
type = "nginx"
verify = { http = "http://${region}.example.com/" }
site = { listen = ["${port}"], names = ["${region}.example.com"] }
[install]
run = ["bin/setup ${region}"]
`, Options{Set: map[string]string{"region": "eu"}})
	app := resolve(t, f, map[string]string{
		"version": "v1", "registry": "r.example.com:5000", "user": "ci", "git": "git.example.com", "port": "8080",
		"a": "${region} '\" $(x); \n", "mem": "64", "cpus": "0.5", "grace": "7", "status": "204", "region": "overridden",
	})
	want := defaults()
	want.Name = "shop"
	want.Image = Image{Name: "r.example.com:5000/shop:v1", Pull: "always", PullParallel: 16, Username: "ci", Password: &Secret{File: "secrets/eu"}}
	want.Code = &Code{Repository: "git@git.example.com:shop.git", Ref: "v1", Path: "/srv/ci", Via: "host"}
	want.Container = Container{
		Port: 8080, Protocol: "http", Replicas: 1, Command: []string{"web", "--region", "eu"},
		Env:     map[string]string{"A": "${region} '\" $(x); \n${region} '\" $(x); \n", "B": "x ${a} $a $$ eu"},
		Secrets: map[string]Secret{"S": {Command: []string{"get", "eu/key"}}},
		Volumes: []Volume{{Source: "data-eu", Target: "/data"}},
		Memory:  64 << 20, CPUs: 0.5, StopGrace: 7 * time.Second,
	}
	want.Install.Run = []string{"bin/setup eu"}
	want.Test.Checks = []Check{{HTTP: "/eu", Headers: map[string]string{"X": "eu"}, Status: []int{204}}}
	want.Proxy = &Proxy{
		Type: "nginx", Upstream: "shop", Verify: &Verify{HTTP: "http://eu.example.com/", Status: []int{200}},
		Site: &Site{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080")}, Names: []string{"eu.example.com"}},
	}
	if diff := cmp.Diff(want, app, equal()); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
}

func TestForChecksWhatBecameKnown(t *testing.T) {
	f := load(t, "app = \"shop\"\nimage.name = \"shop:${version}\"\ncode = { repository = \"${repo}\", ref = \"${version}\", path = \"/x\" }\ndrain.delay = \"${delay}\"\n", Options{})
	tests := []struct {
		name string
		vars map[string]string
		want string
	}{
		{"an image", map[string]string{"version": "a b", "repo": "/r", "delay": "1s"}, `image.name: "shop:a b" is not an image`},
		{"a ref", map[string]string{"version": "-x", "repo": "/r", "delay": "1s"}, `code.ref: "-x" is not a branch`},
		{"a repository", map[string]string{"version": "1", "repo": "ext::sh", "delay": "1s"}, `code.repository: "ext::sh" is not a repository`},
		{"a time", map[string]string{"version": "1", "repo": "/r", "delay": "-1s"}, "drain.delay: must not be negative"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := f.For(test.vars)
			var problems tomlfile.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := f.For(map[string]string{"version": "1", "repo": "/r", "delay": "1s"}); err != nil {
		t.Error(err)
	}
}

func TestUses(t *testing.T) {
	f := load(t, `app = "shop"
image.name = "shop:${version}"
[container]
env = { A = "${region}", C = "$${zone}" }
command = ["x", "${arg}"]
[test]
checks = [{ exec = ["${probe}"] }]
`, Options{})
	tests := []struct {
		name string
		keys []string
		want bool
	}{
		{"version", nil, true},
		{"version", []string{"image.name"}, true},
		{"version", []string{"image"}, true},
		{"version", []string{"imag"}, false},
		{"version", []string{"container", "image.name"}, true},
		{"version", []string{"container"}, false},
		{"region", []string{"container.env.A"}, true},
		{"region", []string{"container.env.C"}, false},
		{"zone", nil, false},
		{"arg", []string{"container.command"}, true},
		{"arg", []string{"container.command[1]"}, true},
		{"arg", []string{"container.command[0]"}, false},
		{"probe", []string{"test.checks[0]"}, true},
		{"nothing", nil, false},
	}
	for _, test := range tests {
		if got := f.Uses(test.name, test.keys...); got != test.want {
			t.Errorf("Uses(%q, %q) = %v", test.name, test.keys, got)
		}
	}
}

func TestProblemPointsIntoTheFile(t *testing.T) {
	err := load(t, shop, Options{Environment: "staging"}).Problem("hosts", "no host is named staging", "did you mean web?")
	want := `teal.toml:71:9: environments.staging.hosts: no host is named staging
   71 | hosts = "staging"
      |         ^^^^^^^^^
  hint: did you mean web?`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
}

func TestJSONHoldsSourcesOfSecretsAlone(t *testing.T) {
	t.Setenv("REGISTRY_PASSWORD", "hunter2")
	app := resolve(t, load(t, shop, Options{}), map[string]string{"version": "42", "RAILS_MAX_THREADS": "5"})
	out, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "hunter2") || !strings.Contains(string(out), "REGISTRY_PASSWORD") {
		t.Errorf("got %s", out)
	}
	var back App
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatal(err)
	}
}

func TestRenderIsAnAppFile(t *testing.T) {
	vars := map[string]string{"version": "42", "RAILS_MAX_THREADS": "5", "private_address": "10.0.0.5"}
	for name, src := range map[string]string{
		"balanced":   strings.ReplaceAll(balanced, "${most}", "99%"),
		"canary off": "app = \"shop\"\nimage.name = \"shop\"\n[rollout]\ncanary = []\nwatch = \"1m\"\n",
		"everything": shop,
		"least":      "app = \"shop\"\nimage.name = \"shop\"\n",
		"odd text":   "app = \"shop\"\nimage.name = \"shop\"\n[container.env]\nA = \"quotes ' \\\" \\\\ \\n \\u001b $(x) ä\"\n",
		"no checks":  "app = \"shop\"\nimage.name = \"shop\"\ncontainer.port = 1\nproxy.type = \"nginx\"\ntest.checks = []\n",
		"odd sizes":  "app = \"shop\"\nimage.name = \"shop\"\ncontainer.memory = \"7000k\"\ndrain = { delay = \"0s\", max = \"1h5s\" }\ntest.stable = \"0s\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			app := resolve(t, load(t, src, Options{}), vars)
			text := Render(app)
			again, err := Parse("rendered.toml", []byte(text), Options{})
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if diff := cmp.Diff(app, again.App(), equal()); diff != "" {
				t.Errorf("read again (-want +got):\n%s\n%s", diff, text)
			}
		})
	}
}

func BenchmarkFor(b *testing.B) {
	f, err := Parse("teal.toml", []byte(shop), Options{})
	if err != nil {
		b.Fatal(err)
	}
	vars := map[string]string{"version": "42", "RAILS_MAX_THREADS": "5"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.For(vars); err != nil {
			b.Fatal(err)
		}
	}
}
