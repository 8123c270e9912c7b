package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/examples/internal/websocket"
	"github.com/teal-deploy/teal/examples/shop"
)

// code writes the code of a release; mode is its fault.
func code(t *testing.T, release, mode string) string {
	t.Helper()
	dir := t.TempDir()
	if err := shop.WriteCode(dir); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"release": release + "\n", "mode": mode} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// install runs the install step as the image does: with busybox's tools only.
func install(t *testing.T, dir string) (string, error) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("the install script needs busybox: apt-get install busybox-static")
	}
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), busybox, "--install", "-s", bin).CombinedOutput(); err != nil {
		t.Fatalf("install busybox: %v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "sh"), "install.sh")
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + bin}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func installed(t *testing.T, name, mode string) *release {
	t.Helper()
	dir := code(t, name, mode)
	if out, err := install(t, dir); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	r, err := loadRelease(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start serves a release and returns its URL.
func start(t *testing.T, r *release) string {
	t.Helper()
	s := httptest.NewServer(newStore(r, quiet()).handler())
	t.Cleanup(s.Close)
	return s.URL
}

func do(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestInstalledReleaseIsServedWithItsAssets(t *testing.T) {
	url := start(t, installed(t, "42", ""))
	resp, page := do(t, http.MethodGet, url+"/", "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Release") != "42" {
		t.Errorf("answer %s from release %q, want 200 from 42", resp.Status, resp.Header.Get("X-Release"))
	}
	for _, want := range []string{`data-release="42"`, "Gyokuro", "11.90", "Cup &#34;Dawn&#34;"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	_, rest, _ := strings.Cut(page, `href="`)
	asset, _, _ := strings.Cut(rest, `"`)
	if resp, css := do(t, http.MethodGet, url+asset, ""); resp.StatusCode != http.StatusOK || !strings.Contains(css, "font") {
		t.Errorf("asset %q: %s", asset, resp.Status)
	}
}

func TestInstallTellsReleasesApart(t *testing.T) {
	a, b, again := installed(t, "1", ""), installed(t, "2", ""), installed(t, "1", "")
	if a.Build == b.Build {
		t.Error("two releases have the same build")
	}
	if a.Build != again.Build {
		t.Errorf("the same code gave the builds %s and %s", a.Build, again.Build)
	}
}

func TestInstallFailsWithItsCode(t *testing.T) {
	tests := []struct {
		name, file, text, want string
		code                   int
	}{
		{"asked to", "mode", "install-fails\n", "made to fail", 3},
		{"bad catalogue", "catalogue.tsv", "T-1\ttea\tmuch\tDear tea\n", "bad line", 1},
		{"missing asset", "templates/page.html", "@nothing.js@\n", "not there", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := code(t, "1", "")
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := install(t, dir)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("error %v, output %q; want code %d and %q", err, out, tt.code, tt.want)
			}
			if _, err := loadRelease(dir); !errors.Is(err, errNotInstalled) {
				t.Errorf("a failed install left a release: %v", err)
			}
		})
	}
}

func TestFailedInstallKeepsTheFormerOne(t *testing.T) {
	dir := code(t, "1", "")
	if out, err := install(t, dir); err != nil {
		t.Fatal(err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "catalogue.tsv"), []byte("broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := install(t, dir); err == nil {
		t.Fatal("a broken catalogue was installed")
	}
	if r, err := loadRelease(dir); err != nil || r.Name != "1" {
		t.Errorf("release %+v, error %v; want 1", r, err)
	}
}

func TestShopThatIsNotInstalledAnswers503(t *testing.T) {
	url := start(t, nil)
	for _, path := range []string{"/", "/up", "/download"} {
		if resp, _ := do(t, http.MethodGet, url+path, ""); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s, want 503", path, resp.Status)
		}
	}
}

func TestFaultsShowWhereTheyShould(t *testing.T) {
	tests := []struct {
		mode     string
		up, page int
	}{
		{"", 200, 200},
		{"never-up", 503, 200},
		{"slow-start 100", 503, 200},
		{"slow-start 0", 200, 200},
		{"broken-page", 200, 500},
		{"dies 100", 200, 200},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			url := start(t, installed(t, "7", tt.mode))
			up, _ := do(t, http.MethodGet, url+"/up", "")
			page, _ := do(t, http.MethodGet, url+"/", "")
			if up.StatusCode != tt.up || page.StatusCode != tt.page {
				t.Errorf("/up %d, / %d; want %d, %d", up.StatusCode, page.StatusCode, tt.up, tt.page)
			}
		})
	}
}

func TestUnknownModeIsRefused(t *testing.T) {
	for _, text := range []string{"nonsense", "dies", "dies soon", "dies -1", "never-up 3"} {
		if m, err := parseMode(text); err == nil {
			t.Errorf("parseMode(%q) = %+v, want an error", text, m)
		}
	}
	got, err := parseMode("dies 1.5")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(mode{Fault: faultDies, After: 1500 * time.Millisecond}, got); diff != "" {
		t.Error(diff)
	}
}

func TestBodiesAreProvenToHaveComeInWhole(t *testing.T) {
	url := start(t, installed(t, "3", ""))
	for _, path := range []string{"/order", "/upload"} {
		resp, body := do(t, http.MethodPost, url+path, "hello")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"bytes": 5.0, "release": "3",
			"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
		}
		if diff := cmp.Diff(want, got); resp.StatusCode != http.StatusCreated || diff != "" {
			t.Errorf("%s: %s: %s", path, resp.Status, diff)
		}
	}
}

func TestDownloadTakesItsTimeAndIsWhole(t *testing.T) {
	url := start(t, installed(t, "3", ""))
	began := time.Now()
	resp, body := do(t, http.MethodGet, url+"/download?bytes=1003&seconds=0.2", "")
	if took := time.Since(began); len(body) != 1003 || took < 190*time.Millisecond {
		t.Errorf("%d bytes in %s, want 1003 in 200ms", len(body), took)
	}
	if resp.ContentLength != 1003 {
		t.Errorf("announced %d bytes, want 1003", resp.ContentLength)
	}
	for _, query := range []string{"bytes=-1", "bytes=x", "seconds=1e9"} {
		if resp, _ := do(t, http.MethodGet, url+"/download?"+query, ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s, want 400", query, resp.Status)
		}
	}
}

// served runs the whole program and returns its address and how it ended.
func served(t *testing.T, dir string, args ...string) (string, context.CancelFunc, <-chan int) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, append([]string{"-dir", dir, "-listen", addr}, args...), io.Discard) }()
	for range 200 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
			return addr, stop, ended
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the shop does not listen")
	return "", nil, nil
}

func code0(t *testing.T, ended <-chan int) {
	t.Helper()
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("the shop ended with code %d, want 0", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the shop did not end")
	}
}

func TestStopFinishesTheRequestsThatAreOpen(t *testing.T) {
	dir := code(t, "5", "")
	if out, err := install(t, dir); err != nil {
		t.Fatal(err, out)
	}
	addr, stop, ended := served(t, dir)
	resp, err := http.Get("http://" + addr + "/download?bytes=100000&seconds=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stop()
	n, err := io.Copy(io.Discard, bufio.NewReader(resp.Body))
	if n != 100000 || err != nil {
		t.Errorf("%d bytes, error %v; want 100000", n, err)
	}
	code0(t, ended)
}

func TestStopClosesSocketsWithACloseFrame(t *testing.T) {
	dir := code(t, "5", "")
	if out, err := install(t, dir); err != nil {
		t.Fatal(err, out)
	}
	addr, stop, ended := served(t, dir)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, resp, err := websocket.Handshake(conn, addr, "/ws")
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("X-Release"); got != "5" {
		t.Errorf("X-Release %q, want 5", got)
	}
	if err := c.WriteFrame(websocket.Ping, []byte("p")); err != nil {
		t.Fatal(err)
	}
	if op, b, err := c.ReadFrame(); op != websocket.Pong || !bytes.Equal(b, []byte("p")) || err != nil {
		t.Errorf("read %v %q, error %v; want the pong", op, b, err)
	}
	stop()
	op, payload, err := c.ReadFrame()
	if err != nil || op != websocket.Close || websocket.Reason(payload) != websocket.GoingAway {
		t.Errorf("read %v %v, error %v; want a close frame", op, payload, err)
	}
	if err := c.WriteFrame(websocket.Close, payload); err != nil {
		t.Fatal(err)
	}
	code0(t, ended)
}

func TestProgramEndsWithACodeWhenItCannotServe(t *testing.T) {
	bad := code(t, "1", "")
	if err := os.MkdirAll(filepath.Join(bad, "built"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bad, "built", "manifest"), []byte("release=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dies := code(t, "1", "dies 0.05")
	if out, err := install(t, dies); err != nil {
		t.Fatal(err, out)
	}
	tests := []struct {
		name string
		args []string
		want int
	}{
		{"a flag that is none", []string{"-x"}, 2},
		{"a protocol that is none", []string{"-dir", t.TempDir(), "-protocol", "quic"}, 2},
		{"a broken release", []string{"-dir", bad}, 1},
		{"no such address", []string{"-dir", t.TempDir(), "-listen", "127.0.0.1:-1"}, 1},
		{"a release that dies", []string{"-dir", dies, "-listen", "127.0.0.1:0"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := run(t.Context(), tt.args, io.Discard); got != tt.want {
				t.Errorf("code %d, want %d", got, tt.want)
			}
		})
	}
}
