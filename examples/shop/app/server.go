package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/teal-deploy/teal/examples/internal/websocket"
)

// Limits of one request.
const (
	maxOrder    = 1 << 20
	maxUpload   = 64 << 20
	maxDownload = 64 << 20
	maxSeconds  = 600
)

// goodbye is how long a client has to answer a close frame.
const goodbye = 5 * time.Second

// A store answers requests from one release.
type store struct {
	release *release // nil: not installed
	started time.Time
	log     *slog.Logger

	mu      sync.Mutex
	sockets map[*websocket.Conn]bool
	closing bool
	open    sync.WaitGroup // the handlers of sockets
}

func newStore(r *release, log *slog.Logger) *store {
	return &store{release: r, started: time.Now(), log: log, sockets: map[*websocket.Conn]bool{}}
}

// handler returns the routes. Every answer names the release in X-Release.
func (s *store) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /up", s.up)
	if s.release != nil {
		mux.HandleFunc("GET /{$}", s.page)
		mux.Handle("GET /assets/", http.FileServerFS(s.release.files))
		mux.HandleFunc("POST /order", s.order)
		mux.HandleFunc("GET /download", s.download)
		mux.HandleFunc("POST /upload", s.upload)
		mux.HandleFunc("GET /ws", s.socket)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.release != nil {
			w.Header().Set("X-Release", s.release.Name)
		} else if r.URL.Path != "/up" {
			http.Error(w, errNotInstalled.Error(), http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ready says whether the shop can take requests.
func (s *store) ready() bool {
	if s.release == nil || s.release.mode.Fault == faultNeverUp {
		return false
	}
	return s.release.mode.Fault != faultSlowStart || time.Since(s.started) >= s.release.mode.After
}

// up says the same to whoever asks.
func (s *store) up(w http.ResponseWriter, _ *http.Request) {
	switch {
	case s.release == nil:
		s.answer(w, http.StatusServiceUnavailable, map[string]any{"status": errNotInstalled.Error()})
	case !s.ready():
		s.answer(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready"})
	default:
		s.answer(w, http.StatusOK, map[string]any{"status": "ok", "build": s.release.Build})
	}
}

func (s *store) page(w http.ResponseWriter, _ *http.Request) {
	if s.release.mode.Fault == faultBrokenPage {
		http.Error(w, "the page is broken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(s.release.Page)))
	_, _ = w.Write(s.release.Page) // a client that has gone wants no answer
}

// order takes an order and proves that it came in whole.
func (s *store) order(w http.ResponseWriter, r *http.Request) {
	s.receive(w, http.MaxBytesReader(w, r.Body, maxOrder))
}

// upload takes a large body.
func (s *store) upload(w http.ResponseWriter, r *http.Request) {
	s.receive(w, http.MaxBytesReader(w, r.Body, maxUpload))
}

func (s *store) receive(w http.ResponseWriter, body io.Reader) {
	text, err := s.receipt(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	send(w, http.StatusCreated, text)
}

// receipt reads a body to its end and returns JSON that says what has come in.
func (s *store) receipt(body io.Reader) ([]byte, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	if err != nil {
		return nil, err
	}
	return s.encode(map[string]any{"bytes": n, "sha256": hex.EncodeToString(sum.Sum(nil))})
}

// download sends bytes (default 1 MiB) over a time (seconds, default none), in
// even pieces.
func (s *store) download(w http.ResponseWriter, r *http.Request) {
	size, err1 := number(r, "bytes", 1<<20, maxDownload)
	seconds, err2 := number(r, "seconds", 0, maxSeconds)
	if err1 != nil || err2 != nil {
		http.Error(w, "bytes and seconds are numbers within bounds", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(int(size)))
	const pieces = 50
	interval := time.Duration(seconds * float64(time.Second) / pieces)
	flush := http.NewResponseController(w)
	left := int(size)
	for i := range pieces {
		n := left / (pieces - i)
		left -= n
		if _, err := w.Write(make([]byte, n)); err != nil {
			return
		}
		if interval == 0 {
			continue
		}
		if flush.Flush() != nil || !pause(r.Context(), interval) {
			return
		}
	}
}

// socket sends every text back until the client closes or the shop does.
func (s *store) socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r)
	if err != nil {
		return
	}
	defer c.Close()
	if !s.keep(c) {
		_ = c.WriteClose(websocket.GoingAway)
		return
	}
	defer s.drop(c)
	for {
		op, payload, err := c.ReadFrame()
		if err != nil {
			return
		}
		switch op {
		case websocket.Text:
			err = s.write(c, websocket.Text, payload)
		case websocket.Ping:
			err = s.write(c, websocket.Pong, payload)
		case websocket.Close:
			_ = s.write(c, websocket.Close, payload)
			return
		case websocket.Pong:
		}
		if err != nil {
			return
		}
	}
}

// keep remembers an open socket; it returns false when the shop closes.
func (s *store) keep(c *websocket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.sockets[c] = true
	s.open.Add(1)
	return true
}

func (s *store) drop(c *websocket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, c)
	s.open.Done()
}

// write sends a frame: an echo and the shop's close frame may meet.
func (s *store) write(c *websocket.Conn, op websocket.Opcode, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.WriteFrame(op, payload)
}

// closeSockets tells all clients that the shop goes, and waits until they have
// answered or had their time for it.
func (s *store) closeSockets(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	s.mu.Lock()
	s.closing = true
	for c := range s.sockets {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.WriteClose(websocket.GoingAway) // one that cannot be told has gone
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// answer sends JSON with the release in it.
func (s *store) answer(w http.ResponseWriter, status int, body map[string]any) {
	text, err := s.encode(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	send(w, status, text)
}

// encode makes JSON of body, with the release in it.
func (s *store) encode(body map[string]any) ([]byte, error) {
	if s.release != nil {
		body["release"] = s.release.Name
	}
	return json.Marshal(body)
}

func send(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that has gone wants no answer
}

// number reads a number of the query, 0 to limit.
func number(r *http.Request, name string, otherwise, limit float64) (float64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err == nil && (n < 0 || n > limit) {
		err = strconv.ErrRange
	}
	return n, err
}

// pause waits for d and returns true, or returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
