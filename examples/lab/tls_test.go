//go:build linux

package lab

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTLSSitesLeadToTheUpstream(t *testing.T) {
	tests := []struct{ name, got, want string }{
		{"nginx", nginxTLSSite(TLSSite{Upstream: "shop"}), `# The lab's TLS site.
server {
	listen 443 ssl http2;
	ssl_certificate /etc/lab/tls.pem;
	ssl_certificate_key /etc/lab/tls.pem;
	client_max_body_size 0;
	location / {
		proxy_pass http://shop;
		proxy_http_version 1.1;
		proxy_request_buffering off;
		proxy_buffering off;
		proxy_set_header Host $host;
		proxy_set_header Connection "";
	}
}
# The end of the lab's TLS site.
`},
		{"nginx with gRPC", nginxTLSSite(TLSSite{Upstream: "shop", GRPC: true}), `# The lab's TLS site.
server {
	listen 443 ssl http2;
	ssl_certificate /etc/lab/tls.pem;
	ssl_certificate_key /etc/lab/tls.pem;
	client_max_body_size 0;
	location / {
		grpc_pass grpc://shop;
		grpc_read_timeout 1h;
		grpc_send_timeout 1h;
	}
}
# The end of the lab's TLS site.
`},
		{"HAProxy", haproxyTLSSite(TLSSite{Upstream: "shop", GRPC: true}), `# The lab's TLS site.
frontend lab_tls
	bind :443 ssl crt /etc/lab/tls.pem alpn h2,http/1.1
	default_backend shop
# The end of the lab's TLS site.
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCertificateIsThatOfAllHosts(t *testing.T) {
	l := balanced(HAProxy)
	l.config.Dir = t.TempDir()
	roots, err := l.Roots()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := l.certificate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair([]byte(pair), []byte(pair))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"h1", "lb2", "10.46.3.11", "10.46.3.212"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "h3", Roots: roots}); err == nil {
		t.Error("it is that of h3, too")
	}
	info, err := os.Stat(l.path("tls.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v, error %v", info.Mode(), err)
	}
}

func TestMissingNamesThePartsOfEachKind(t *testing.T) {
	packages := func(c Config) (all []string) {
		for _, r := range requirements(c) {
			all = append(all, r.pkg)
		}
		return all
	}
	tests := []struct {
		name    string
		config  Config
		nginx   bool
		haproxy bool
		docker  bool
		podman  bool
	}{
		{"by default", Config{}, true, false, false, false},
		{"nginx", Config{Proxy: Nginx, Balancers: 1}, true, false, false, false},
		{"HAProxy", Config{Proxy: HAProxy}, false, true, false, false},
		{"none", Config{Proxy: NoProxy}, false, false, false, false},
		{"Docker", Config{Proxy: NoProxy, Engine: Docker}, false, false, true, false},
		{"Podman beside Docker", Config{Proxy: NoProxy, Engine: Docker, Engines: []string{RootlessPodman}}, false, false, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := map[string]bool{}
			for _, p := range packages(tt.config) {
				all[p] = true
			}
			if all["nginx-light"] != tt.nginx || all["haproxy"] != tt.haproxy {
				t.Errorf("nginx %t, HAProxy %t; want %t, %t", all["nginx-light"], all["haproxy"], tt.nginx, tt.haproxy)
			}
			if all["docker.io"] != tt.docker || all["podman"] != tt.podman || all["uidmap"] != tt.podman {
				t.Errorf("Docker %t, Podman %t; want %t, %t", all["docker.io"], all["podman"], tt.docker, tt.podman)
			}
		})
	}
}
