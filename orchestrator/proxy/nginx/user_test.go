package nginx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

// A userConf is a configuration as people have it, where PORT is a port, and
// whether it can serve the app shop at PORT.
type userConf struct {
	files  map[string]string
	serves bool
}

const (
	paths = `access_log off; error_log %[1]s/error.log;
client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;`
	debianMain = `user www-data;
worker_processes 2;
pid nginx.pid;
error_log %[1]s/error.log;
include %[1]s/modules-enabled/*.conf;

events {
	worker_connections 768;
	# multi_accept on;
}

http {
	sendfile on;
	tcp_nopush on;
	types_hash_max_size 2048;
	# server_tokens off;
	include /etc/nginx/mime.types;
	default_type application/octet-stream;
	ssl_protocols TLSv1.2 TLSv1.3; # not SSLv3: POODLE
	ssl_prefer_server_ciphers on;
	gzip on;
	include %[1]s/paths;
	include %[1]s/conf.d/*.conf;
	include %[1]s/sites-enabled/*;
}

#mail {
#	server { listen localhost:110; protocol pop3; }
#}
`
	debianSite = `##
# Default server configuration
##
server {
	listen 127.0.0.1:PORT default_server;
	listen [::1]:PORT default_server;
	root /var/www/html;
	index index.html index.htm index.nginx-debian.html;
	server_name _;
	location / {
		# First attempt to serve request as file, then as directory
		try_files $uri $uri/ =404;
	}
	#location ~ \.php$ {
	#	include snippets/fastcgi-php.conf;
	#}
}
`
)

func userConfs() map[string]userConf {
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, `
server {
    listen 127.0.0.1:PORT;
    server_name s%[1]d.example.com "~^(?<shop>s%[1]d)-[a-z]{2,4}\.example\.com$";
    set $banner "a; b { c } '%[1]d'";
    if ($bad) { return 403; }
    rewrite ^/old/(.*)$ /new/$1 permanent;
    location ~* \.(?:css|js)$ { expires 30d; add_header X-Banner "$banner"; return 204; }
    location = /x { return 200 "\"}\"\n"; }
    location / { include snippets/app.conf; }
}
`, i)
	}
	return map[string]userConf{
		"as Debian ships it": {map[string]string{
			"nginx.conf": debianMain, "paths": paths, "sites-enabled/default": debianSite,
		}, false},
		"many servers, snippets and maps": {map[string]string{
			"nginx.conf": strings.Replace(debianMain, "include %[1]s/sites", `log_format json escape=json '{"a":"$request","b":{"c":"$status"}}';
	map $http_user_agent $bad { default 0; "~*(curl|wget)/[0-9]{1,3}" 0; "evil;}" 1; }
	map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
	geo $inside { default 0; 10.0.0.0/8 1; }
	proxy_http_version 1.1;
	include %[1]s/sites`, 1),
			"paths": paths, "sites-enabled/many": many.String(),
			"snippets/app.conf": "proxy_pass http://shop;\ninclude snippets/headers.conf;\n",
			"snippets/headers.conf": `proxy_set_header Host $host;
proxy_set_header Upgrade $http_upgrade; proxy_set_header "Connection" $connection_upgrade;`,
		}, true},
		"lines of another system, and no end of the last": {map[string]string{
			"nginx.conf": strings.ReplaceAll("worker_processes 2;\npid nginx.pid;\nerror_log %[1]s/error.log;\n\nevents {}\nhttp\n{\n\t"+paths+"\n\tinclude http.d/*.conf;\n}", "\n", "\r\n"),
			"http.d/shop.conf": strings.ReplaceAll("# ümlaut\nserver\n{\n\tlisten 127.0.0.1:PORT;location /\n\t{\n\t\tproxy_pass\n\t\t\thttp://shop;\n"+
				"\t\tproxy_http_version 1.1;proxy_set_header Connection '';\n\t}\n} # no end", "\n", "\r\n"),
		}, true},
		"all in one file": {map[string]string{
			"nginx.conf": `worker_processes 2; pid nginx.pid; error_log %[1]s/error.log; events { } http { ` + paths + `
server { listen 127.0.0.1:PORT; location / { proxy_pass http://shop/; proxy_http_version 1.1; proxy_set_header Connection ""; } }
upstream legacy { server 127.0.0.1:1; server unix:/nowhere backup; }
include %[1]s/conf.d/[a-z]*.conf; include %[1]s/extra.conf; }`,
			"extra.conf": "# nothing but a comment",
		}, true},
	}
}

// bytesOf returns the content of all files below a folder but teal's own.
func bytesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(name, "teal-shop.conf") || filepath.Ext(name) == ".log" || filepath.Ext(name) == ".pid" {
			return err
		}
		b, err := os.ReadFile(name)
		info, err2 := e.Info()
		if err == nil && err2 == nil {
			found[name] = info.ModTime().String() + info.Mode().String() + string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFilesOfTheUserKeepEveryByte(t *testing.T) {
	t.Parallel()
	for name, c := range userConfs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := proxytest.Port(t)
			files := map[string]string{}
			for file, text := range c.files {
				files[file] = strings.ReplaceAll(text, "PORT", fmt.Sprint(at))
				if c.serves { // for the first start, before there is the app
					files[file] = strings.ReplaceAll(files[file], "http://shop", "http://127.0.0.1:1")
				}
			}
			d, l := launch(t, files), app(t, "shop")
			for file, text := range c.files {
				d.write(file, strings.ReplaceAll(strings.ReplaceAll(text, "PORT", fmt.Sprint(at)), "%[1]s", d.dir))
			}
			before := bytesOf(t, d.dir)
			prepare(t, d, l, true)
			switchTo(t.Context(), t, d, l, proxy.Green)
			if diff := cmp.Diff(before, bytesOf(t, d.dir)); diff != "" {
				t.Errorf("files of the user (-before +after):\n%s", diff)
			}
			if warnings, err := d.proxy().Check(t.Context(), host(), l); err != nil || len(warnings) > 0 {
				t.Errorf("%q, %v", warnings, err)
			}
			if got := proxytest.Get(t, fmt.Sprintf("http://127.0.0.1:%d/", at)); c.serves && got != "green" {
				t.Errorf("the site answers %q", got)
			}
			breakUser(t, d, l)
		})
	}
}

// breakUser breaks the user's main file: nginx's own words must be told, and
// nothing reloaded.
func breakUser(t *testing.T, d *daemon, l proxy.Layout) {
	t.Helper()
	workers, former := d.workers(), d.file("nginx.conf")
	d.write("nginx.conf", strings.Replace(former, "events", "evnets", 1))
	broken, conf := bytesOf(t, d.dir), d.file("conf.d/teal-shop.conf")
	l.Members[0].Green = append(l.Members[0].Green, proxytest.Serve(t, "web1", "green"))
	_, err := d.proxy().Prepare(t.Context(), host(), l)
	if plugins.KindOf(err) != plugins.Invalid || !strings.Contains(err.Error(), `unknown directive "evnets"`) {
		t.Errorf("kind %q, %v", plugins.KindOf(err), err)
	}
	if diff := cmp.Diff(broken, bytesOf(t, d.dir)); diff != "" || d.workers() != workers || d.file("conf.d/teal-shop.conf") != conf {
		t.Errorf("something was changed or reloaded:\n%s", diff)
	}
}

// certificate makes one for 127.0.0.1 that nobody trusts.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop"}, NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, x, x, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func TestSwitchesBehindASiteWithTLSAndHTTP2FailNoRequest(t *testing.T) {
	t.Parallel()
	d, l := start(t), fleet(t, "shop", 2)
	cert, key := certificate(t)
	at := proxytest.Port(t)
	d.write("tls/cert.pem", cert)
	d.write("tls/key.pem", key)
	d.write("sites-enabled/shop", fmt.Sprintf("server {\n listen 127.0.0.1:%d ssl http2;\n ssl_certificate %[2]s/tls/cert.pem;\n ssl_certificate_key %[2]s/tls/key.pem;\n%[3]s}\n",
		at, d.dir, new(Proxy).Usage(l)))
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)

	var requests atomic.Int64
	var serving atomic.Pointer[proxy.Slot]
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 { // connections, each with many requests at a time
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		for range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					before := serving.Load()
					resp, err := roundTrip(transport, fmt.Sprintf("https://127.0.0.1:%d/", at), n%3 == 0)
					if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
						t.Errorf("%v, %v", resp, err)
						return
					}
					if slot := resp.Header.Get("App"); before != nil && before == serving.Load() && slot != string(*before) {
						t.Errorf("%s answers instead of %s", slot, *before)
					}
					requests.Add(1)
				}
			})
		}
	}
	for i := range 30 {
		slot := []proxy.Slot{proxy.Green, proxy.Blue}[i%2]
		serving.Store(nil)
		switchTo(t.Context(), t, d, l, slot)
		serving.Store(&slot)
		time.Sleep(30 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d requests", requests.Load())
}

// roundTrip makes a GET or a POST and reads its answer.
func roundTrip(transport *http.Transport, url string, post bool) (*http.Response, error) {
	method, body := http.MethodGet, ""
	if post {
		method, body = http.MethodPost, strings.Repeat("z", 20000)
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

func TestSwitchOnAFullDiskChangesNothing(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d, l := start(t), fleet(t, "shop", 2)
	if err := syscall.Mount("tmpfs", l.Dir, "tmpfs", 0, "size=1m,nr_inodes=600,mode=755"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(l.Dir, syscall.MNT_DETACH) })
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	var full error
	n := 0
	for ; full == nil; n++ {
		full = os.WriteFile(fmt.Sprintf("%s/fill%d", l.Dir, n), nil, 0o644)
	}
	_ = os.Remove(fmt.Sprintf("%s/fill%d", l.Dir, n-2)) // enough to begin with
	err := d.proxy().Switch(t.Context(), host(), l, proxytest.All(l, 100), nil)
	if err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(serving(proxytest.All(l, 0)), observe(t, d, l)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if seen := tally(t, 20, http.MethodGet, stable(l, 0)); seen["web1/blue"] != 20 {
		t.Errorf("%v", seen)
	}
	for i := range n {
		_ = os.Remove(fmt.Sprintf("%s/fill%d", l.Dir, i))
	}
	switchTo(t.Context(), t, d, l, proxy.Green)
}
