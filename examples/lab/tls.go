//go:build linux

package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"time"
)

// tlsFile is where a host has its certificate and the key of that.
const tlsFile = "/etc/lab/tls.pem"

// A TLSSite is a site of the user's own, as it may stand on any server before
// teal comes: a public TLS listener on port 443 that speaks HTTP/2 and leads to
// an upstream that teal owns.
type TLSSite struct {
	Upstream string // of nginx, or the backend of HAProxy
	GRPC     bool   // the app speaks gRPC
}

// AddTLSSite writes the site into the configuration of the host's proxy and
// reloads it. The upstream must be there. A site that the proxy does not take
// is taken out again.
func (h *Host) AddTLSSite(ctx context.Context, site TLSSite) error {
	pair, err := h.lab.certificate()
	if err != nil {
		return fmt.Errorf("add a TLS site to %s: %w", h.Name, err)
	}
	text, path := nginxTLSSite(site), "/etc/nginx/conf.d/lab-tls.conf"
	if h.proxy() == HAProxy {
		text, path = haproxyTLSSite(site), haproxyFile
	}
	const remove = `touch "$1" && sed -i "/^$2$/,/^$3$/d" "$1"`
	const write = remove + ` && printf %s "$4" >>"$1" && mkdir -p /etc/lab && umask 077 && printf %s "$5" >"$6"`
	if _, err := h.Exec(ctx, "sh", "-c", write, "lab", path, siteBegin, siteEnd, text, pair, tlsFile); err != nil {
		return fmt.Errorf("add a TLS site to %s: %w", h.Name, err)
	}
	if err := h.ReloadProxy(ctx); err != nil {
		_, undo := h.Exec(ctx, "sh", "-c", remove, "lab", path, siteBegin, siteEnd)
		return errors.Join(err, undo)
	}
	return nil
}

// The lines around the site in a configuration that is one file.
const (
	siteBegin = "# The lab's TLS site."
	siteEnd   = "# The end of the lab's TLS site."
)

func nginxTLSSite(site TLSSite) string {
	pass := "\t\tproxy_pass http://" + site.Upstream + ";\n" +
		"\t\tproxy_http_version 1.1;\n" +
		"\t\tproxy_request_buffering off;\n" +
		"\t\tproxy_buffering off;\n" +
		"\t\tproxy_set_header Host $host;\n" +
		"\t\tproxy_set_header Connection \"\";\n"
	if site.GRPC {
		pass = "\t\tgrpc_pass grpc://" + site.Upstream + ";\n" +
			"\t\tgrpc_read_timeout 1h;\n" +
			"\t\tgrpc_send_timeout 1h;\n"
	}
	return siteBegin + "\n" +
		"server {\n" +
		"\tlisten 443 ssl http2;\n" +
		"\tssl_certificate " + tlsFile + ";\n" +
		"\tssl_certificate_key " + tlsFile + ";\n" +
		"\tclient_max_body_size 0;\n" +
		"\tlocation / {\n" + pass + "\t}\n" +
		"}\n" +
		siteEnd + "\n"
}

func haproxyTLSSite(site TLSSite) string {
	return siteBegin + "\n" +
		"frontend lab_tls\n" +
		"\tbind :443 ssl crt " + tlsFile + " alpn h2,http/1.1\n" +
		"\tdefault_backend " + site.Upstream + "\n" +
		siteEnd + "\n"
}

// Roots returns what a client of the lab's TLS sites must trust.
func (l *Lab) Roots() (*x509.CertPool, error) {
	pair, err := l.certificate()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pair)) {
		return nil, errors.New("read the lab's certificate: there is none")
	}
	return pool, nil
}

// certificate returns the lab's certificate and its key, in PEM, made at their
// first use. It is that of all hosts, and signed by itself.
func (l *Lab) certificate() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := l.path("tls.pem")
	b, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return string(b), err
	}
	pair, err := newCertificate(l.all())
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	return pair, os.WriteFile(path, []byte(pair), 0o600)
}

func newCertificate(hosts []*Host) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "lab"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, h := range hosts {
		template.DNSNames = append(template.DNSNames, h.Name)
		template.IPAddresses = append(template.IPAddresses, h.Addr.AsSlice())
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: cert}, {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := pem.Encode(&b, block); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}
