//go:build linux

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
)

// The names under which the test program behaves as teal would: in the good
// way, in the way that loses requests, or not at all.
const (
	good    = "teal-good"
	bad     = "teal-bad"
	failing = "teal-failing"
)

func TestMain(m *testing.M) {
	if lab.Init(os.Args[1:]) {
		return
	}
	switch kind := filepath.Base(os.Args[0]); kind {
	case good, bad, failing:
		if err := deployAs(context.Background(), kind, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each run of the stand-in
	os.Exit(m.Run())
}

func need(t *testing.T) {
	t.Helper()
	missing := strings.Join(lab.Missing(Lab(Config{})), "\n")
	if missing == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

func show(t *testing.T, kind string, balancers int) (string, error) {
	t.Helper()
	need(t)
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	teal := filepath.Join(t.TempDir(), kind)
	if err := os.Symlink(self, teal); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = Run(t.Context(), Config{Teal: teal, Hosts: 1, Balancers: balancers, Settle: 600 * time.Millisecond}, &out)
	t.Log("\n" + out.String())
	return out.String(), err
}

func TestDemonstrationOfAGoodSwitchCountsNothing(t *testing.T) {
	out, err := show(t, good, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"switched to release 2", "switched to release 3", "rollback", "one container is left",
		"0 failed, 0 answered by the wrong side", "websocket", "upload",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
}

func TestDemonstrationBehindALoadBalancerCountsNothing(t *testing.T) {
	out, err := show(t, good, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1 host, 1 load balancer with nginx", "clients on 1 load balancer", "h1: switched to release 3",
		"0 failed, 0 answered by the wrong side", "lb1        2",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
}

func TestDemonstrationOfABadSwitchFails(t *testing.T) {
	out, err := show(t, bad, 0)
	if !errors.Is(err, ErrBroken) {
		t.Fatalf("error %v, want ErrBroken", err)
	}
	if !strings.Contains(out, "failed: ") {
		t.Error("the output tells no failure")
	}
}

func TestDemonstrationOfNothingSaysSo(t *testing.T) {
	var out strings.Builder
	err := Run(t.Context(), Config{Teal: filepath.Join(t.TempDir(), "teal"), Hosts: 1}, &out)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
	if err := Run(t.Context(), Config{Teal: os.Args[0], Proxy: lab.NoProxy}, &out); err == nil {
		t.Error("a switch without a proxy was shown")
	}
}

func TestTealThatFailsEndsTheDemonstration(t *testing.T) {
	_, err := show(t, failing, 0)
	if err == nil || !strings.Contains(err.Error(), "this stand-in cannot deploy") {
		t.Errorf("error %v, want what teal has said", err)
	}
}

const goodSite = `map $http_upgrade $connection_up { default upgrade; '' ''; }
upstream blue { server HOST:8081; keepalive 64; keepalive_timeout 4s; }
upstream green { server HOST:8082; keepalive 64; keepalive_timeout 4s; }
server {
	listen 80;
	client_max_body_size 0;
	set $slot blue;
	if (-f /var/lib/standin/green) { set $slot green; }
	location / {
		proxy_pass http://$slot;
		proxy_http_version 1.1;
		proxy_request_buffering off;
		proxy_buffering off;
		proxy_set_header Upgrade $http_upgrade;
		proxy_set_header Connection $connection_up;
	}
}
`

// deployAs does with one host what teal does, in a few lines and with none of
// its care. The good way switches by a file and lets blue finish; the bad one
// removes blue first, then rewrites the configuration and reloads.
func deployAs(ctx context.Context, kind string, args []string) error {
	if kind == failing {
		return errors.New("this stand-in cannot deploy")
	}
	l, err := lab.Open(os.Getenv("TEAL_LAB"))
	if err != nil {
		return err
	}
	h, front := l.Host(1), l.Fronts()[0]
	now, err := front.Exec(ctx, "sh", "-c", "mkdir -p /var/lib/standin; cat /var/lib/standin/slot || true")
	if err != nil {
		return err
	}
	slot, blue := "green", strings.TrimSpace(now)
	if blue == "green" {
		slot = "blue"
	}
	port := map[string]string{"blue": "8081", "green": "8082"}[slot]
	if args[0] == "deploy" {
		version := args[slices.Index(args, "--version")+1]
		if err := makeGreen(ctx, l, h, slot, port); err != nil {
			return err
		}
		if _, err := front.Exec(ctx, "sh", "-c", `echo "$1" >/var/lib/standin/"$2"-version`, "standin", version, slot); err != nil {
			return err
		}
	}
	remove := blue != "" && !slices.Contains(args, "--detach")
	if remove && kind == bad {
		if _, err := l.Docker(ctx, h, "rm", "--force", "shop-"+blue); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := switchTo(ctx, h, front, kind, slot, port); err != nil {
		return err
	}
	confirmed := time.Now()
	version, err := front.Exec(ctx, "cat", "/var/lib/standin/"+slot+"-version")
	if err != nil {
		return err
	}
	res := hostResult{
		Host: h.Name, State: "done", Version: strings.TrimSpace(version), Slot: slot,
		SwitchMS: float64(confirmed.Sub(began).Microseconds()) / 1000, SwitchedAt: confirmed,
	}
	if remove {
		if kind == good {
			if err := removeBlue(ctx, l, h, blue); err != nil {
				return err
			}
		}
		res.BlueGoneAt = time.Now()
	}
	enc := json.NewEncoder(os.Stdout)
	return errors.Join(
		enc.Encode(event{Time: time.Now(), Host: h.Name, Step: "switch", Status: "done"}),
		enc.Encode(map[string]result{"result": {Outcome: "done", Hosts: []hostResult{res}}}),
	)
}

func makeGreen(ctx context.Context, l *lab.Lab, h *lab.Host, slot, port string) error {
	// The version is that of the image and, in this story, of the code.
	version, err := os.ReadFile(filepath.Join(l.Dir(), "shop-code", "release"))
	if err != nil {
		return err
	}
	image := l.Registry().String() + "/shop:" + strings.TrimSpace(string(version))
	name := "shop-" + slot
	for _, argv := range [][]string{
		{"rm", "--force", name},
		{"run", "--detach", "--name", name, "--publish", h.Addr.String() + ":" + port + ":8080", image},
		{"cp", filepath.Join(l.Dir(), "shop-code") + "/.", name + ":/srv/app/"},
		{"exec", name, "sh", "install.sh"},
		{"restart", "--time", "5", name},
	} {
		if _, err := l.Docker(ctx, h, argv...); err != nil {
			return err
		}
	}
	const up = `for i in $(seq 200); do wget -q -O /dev/null http://127.0.0.1:8080/up && exit 0; usleep 50000; done; exit 1`
	_, err = l.Docker(ctx, h, "exec", name, "sh", "-c", up)
	return err
}

func switchTo(ctx context.Context, h, front *lab.Host, kind, slot, port string) error {
	const goodScript = `echo "$1" >/var/lib/standin/slot
if [ "$1" = green ]; then touch /var/lib/standin/green; else rm /var/lib/standin/green; fi
[ -e /etc/nginx/conf.d/shop.conf ] || { printf %s "$2" >/etc/nginx/conf.d/shop.conf; nginx -s reload; sleep 0.5; }`
	const badScript = `echo "$1" >/var/lib/standin/slot
cat >/etc/nginx/conf.d/shop.conf <<END
map \$http_upgrade \$connection_up { default upgrade; '' ''; }
server {
	listen 80;
	location / {
		proxy_pass http://$4:$3;
		proxy_http_version 1.1;
		proxy_set_header Upgrade \$http_upgrade;
		proxy_set_header Connection \$connection_up;
	}
}
END
nginx -s reload; sleep 0.5`
	script := goodScript
	if kind == bad {
		script = badScript
	}
	site := strings.ReplaceAll(goodSite, "HOST", h.Addr.String())
	_, err := front.Exec(ctx, "sh", "-c", script, "standin", slot, site, port, h.Addr.String())
	return err
}

// removeBlue lets blue finish first.
func removeBlue(ctx context.Context, l *lab.Lab, h *lab.Host, blue string) error {
	if err := wait(ctx, 2*time.Second); err != nil {
		return err
	}
	if _, err := l.Docker(ctx, h, "stop", "--time", "10", "shop-"+blue); err != nil {
		return err
	}
	_, err := l.Docker(ctx, h, "rm", "--force", "shop-"+blue)
	return err
}
