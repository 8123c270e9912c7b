package image

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/teal-deploy/teal/plugins"
)

// NewLogin returns a login that nobody can guess.
func NewLogin() plugins.Auth { return plugins.Auth{Username: "teal", Password: rand.Text()} }

// A Packed is an image that is ready to be served.
type Packed struct {
	Digest string // that the image is pulled by, and that a host proves

	repository string
	content    content
}

// A Serving is an image that a host can pull at the moment.
type Serving struct {
	// Reference is what the host pulls: 127.0.0.1:PORT/shop@sha256:…
	Reference string

	packed *Packed
	login  plugins.Auth
	server *http.Server
	ended  chan struct{}
	asked  atomic.Bool
	sent   atomic.Int64
}

// Serve answers those who connect to l and know the login, until Close, which
// closes l as well.
func (p *Packed) Serve(l net.Listener, login plugins.Auth) *Serving {
	s := &Serving{
		Reference: fmt.Sprintf("%s/%s@%s", l.Addr(), p.repository, p.Digest),
		packed:    p, login: login, ended: make(chan struct{}),
	}
	s.server = &http.Server{
		Handler:           http.HandlerFunc(s.answer),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // an engine tries TLS first
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.asked.Store(true)
			}
		},
	}
	go func() {
		defer close(s.ended)
		_ = s.server.Serve(l) // it ends with Close, or with what l leads through
	}()
	return s
}

// Asked reports whether anybody has connected.
func (s *Serving) Asked() bool { return s.asked.Load() }

// Sent returns how many bytes of blobs were sent.
func (s *Serving) Sent() int64 { return s.sent.Load() }

// Close ends the serving and all that is under way.
func (s *Serving) Close() {
	_ = s.server.Close() // a listener that cannot be closed has ended already
	<-s.ended
}

// answer answers as a registry does from which one image can be pulled.
func (s *Serving) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	user, password, _ := r.BasicAuth()
	known := subtle.ConstantTimeCompare([]byte(user), []byte(s.login.Username)) &
		subtle.ConstantTimeCompare([]byte(password), []byte(s.login.Password))
	if known != 1 {
		w.Header().Set("WWW-Authenticate", `Basic realm="teal"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "this image is for one engine")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this image can be pulled and nothing else")
		return
	}
	if r.URL.Path == "/v2/" {
		_, _ = io.WriteString(w, "{}")
		return
	}
	path, _ := strings.CutPrefix(r.URL.Path, "/v2/"+s.packed.repository+"/")
	kind, text, _ := strings.Cut(path, "/")
	digest, err := v1.NewHash(text)
	switch {
	case err == nil && kind == "manifests":
		s.manifest(w, r, digest)
	case err == nil && kind == "blobs":
		s.blob(w, r, digest)
	default:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "there is one image here, known by its digest")
	}
}

func (s *Serving) manifest(w http.ResponseWriter, r *http.Request, digest v1.Hash) {
	kind, text, ok := s.packed.content.manifest(digest)
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", string(kind))
	w.Header().Set("Docker-Content-Digest", digest.String())
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(text)))
}

func (s *Serving) blob(w http.ResponseWriter, r *http.Request, digest v1.Hash) {
	size, open, ok := s.packed.content.blob(digest)
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest.String())
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		return
	}
	content, err := open(r.Context())
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	http.ServeContent(w, r, "", time.Time{}, counted{io.NewSectionReader(content, 0, size), &s.sent})
}

// refuse says no in the words of a registry.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// counted counts what is read.
type counted struct {
	*io.SectionReader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.SectionReader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
