package remotetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

func (h *Host) serverConfig(key ssh.PublicKey, hostKey ssh.Signer) *ssh.ServerConfig {
	config := new(ssh.ServerConfig)
	config.AddHostKey(hostKey)
	errRefused := errors.New("refused")
	if !h.options.RefuseKeys {
		config.PublicKeyCallback = func(_ ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			if bytes.Equal(offered.Marshal(), key.Marshal()) {
				return nil, nil
			}
			return nil, errRefused
		}
	}
	check := func(password string) (*ssh.Permissions, error) {
		if password == h.options.Password {
			return nil, nil
		}
		return nil, errRefused
	}
	if h.options.Password != "" && !h.options.Interactive {
		config.PasswordCallback = func(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			return check(string(password))
		}
	}
	if h.options.Password != "" {
		config.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(answers) != 1 {
				return nil, errRefused
			}
			// PAM likes to end with a round without questions.
			if _, err := ask("", "", nil, nil); err != nil {
				return nil, err
			}
			return check(answers[0])
		}
	}
	return config
}

func (h *Host) accept() {
	for {
		raw, err := h.listener.Accept()
		if err != nil {
			return // the test is over
		}
		h.total.Add(1)
		if h.drop.Add(-1) >= 0 {
			_ = raw.Close()
			continue
		}
		c := &conn{host: h, net: &wire{Conn: raw, host: h}}
		h.mu.Lock()
		h.conns[c] = struct{}{}
		h.mu.Unlock()
		h.wait.Go(c.serve)
	}
}

// A wire is the network under a connection.
type wire struct {
	net.Conn
	host *Host
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.silence()
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	<-time.After(w.host.options.Delay)
	w.silence()
	return w.Conn.Write(p)
}

// silence lasts as long as the host is mute and the connection open.
func (w *wire) silence() {
	for w.host.mute.Load() {
		if err := w.SetDeadline(time.Time{}); errors.Is(err, net.ErrClosed) {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// A conn is one connection of a client.
type conn struct {
	host *Host
	net  *wire
	ssh  *ssh.ServerConn
	wait sync.WaitGroup

	mu       sync.Mutex
	sessions int
	agent    string // the socket of the forwarded agent; "": none
}

func (c *conn) serve() {
	h := c.host
	defer func() {
		_ = c.net.Close()
		c.wait.Wait()
		if c.agent != "" {
			_ = os.Remove(c.agent)
		}
		h.mu.Lock()
		delete(h.conns, c)
		h.mu.Unlock()
	}()
	now := h.shaking.Add(1)
	for most := h.mostOpen.Load(); now > most && !h.mostOpen.CompareAndSwap(most, now); most = h.mostOpen.Load() {
	}
	config, shaken := *h.config, sync.OnceFunc(func() { h.shaking.Add(-1) })
	config.AuthLogCallback = func(_ ssh.ConnMetadata, _ string, err error) {
		if err == nil {
			shaken() // before the client learns of it
		}
	}
	sc, chans, reqs, err := ssh.NewServerConn(c.net, &config)
	shaken()
	if err != nil {
		return
	}
	c.ssh = sc
	c.wait.Go(func() {
		for r := range reqs {
			if r.WantReply {
				_ = r.Reply(false, nil) // what OpenSSH answers to a keepalive
			}
		}
	})
	for open := range chans {
		c.wait.Go(func() { c.open(open) })
	}
}

func (c *conn) open(open ssh.NewChannel) {
	switch kind := open.ChannelType(); kind {
	case "session":
		if !c.enter() {
			_ = open.Reject(ssh.ConnectionFailed, "open failed")
			return
		}
		defer c.leave()
		ch, reqs, err := open.Accept()
		if err == nil {
			(&session{conn: c, channel: ch}).serve(reqs)
		}
	case "direct-tcpip", "direct-streamlocal@openssh.com":
		c.forward(open, kind)
	default:
		_ = open.Reject(ssh.UnknownChannelType, "unknown channel type")
	}
}

func (c *conn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == c.host.options.MaxSessions {
		return false
	}
	c.sessions++
	return true
}

func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions--
}

func (c *conn) forward(open ssh.NewChannel, kind string) {
	if c.host.options.RefuseForwarding {
		reason := ssh.Prohibited
		if kind != "direct-tcpip" {
			reason = ssh.ConnectionFailed // as OpenSSH
		}
		_ = open.Reject(reason, "open failed")
		return
	}
	network, address := "tcp", ""
	if kind == "direct-tcpip" {
		var m struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}
		_ = ssh.Unmarshal(open.ExtraData(), &m) // garbage leads nowhere
		address = net.JoinHostPort(m.Host, fmt.Sprint(m.Port))
	} else {
		var m struct {
			Path     string
			Reserved string
			Unused   uint32
		}
		_ = ssh.Unmarshal(open.ExtraData(), &m)
		network, address = "unix", m.Path
	}
	to, err := net.Dial(network, address)
	if err != nil {
		text := err.Error()
		if network == "unix" {
			text = "open failed" // as OpenSSH
		}
		_ = open.Reject(ssh.ConnectionFailed, text)
		return
	}
	ch, reqs, err := open.Accept()
	if err != nil {
		_ = to.Close()
		return
	}
	go ssh.DiscardRequests(reqs)
	join(ch, to)
}

type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// join copies both ways until both are at their end.
func join(ch ssh.Channel, to net.Conn) {
	var both sync.WaitGroup
	half, _ := to.(halfCloser)
	both.Go(func() {
		_, _ = io.Copy(to, ch)
		_ = half.CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(ch, to)
		_ = ch.CloseWrite()
	})
	both.Wait()
	_ = ch.Close()
	_ = to.Close()
}
