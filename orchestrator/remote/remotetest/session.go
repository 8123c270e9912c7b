package remotetest

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// A session is a channel in which a command or a subsystem runs.
type session struct {
	conn    *conn
	channel ssh.Channel
}

func (s *session) serve(reqs <-chan *ssh.Request) {
	defer func() { _ = s.channel.Close() }()
	for r := range reqs {
		var m struct{ Text string }
		switch {
		case r.Type == "auth-agent-req@openssh.com":
			_ = r.Reply(s.conn.forwardAgent(), nil)
		case ssh.Unmarshal(r.Payload, &m) != nil:
			_ = r.Reply(false, nil)
		case r.Type == "exec":
			_ = r.Reply(true, nil)
			s.exec(m.Text, reqs)
			return
		case r.Type == "subsystem" && m.Text == "sftp" && !s.conn.host.options.RefuseSFTP:
			_ = r.Reply(true, nil)
			go ssh.DiscardRequests(reqs)
			if server, err := sftp.NewServer(s.channel); err == nil {
				_ = server.Serve() // ends with the channel
			}
			return
		case r.WantReply:
			_ = r.Reply(false, nil)
		}
	}
}

// exec runs line in the login shell. The command lives on when the channel
// goes; it sees the end of its input.
func (s *session) exec(line string, reqs <-chan *ssh.Request) {
	o := s.conn.host.options
	cmd := exec.Command(o.Shell[0], append(o.Shell[1:len(o.Shell):len(o.Shell)], "-c", line)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = o.Dir
	cmd.Env = s.conn.environ()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	stdout, outWriter, err := os.Pipe()
	if err != nil {
		return
	}
	stderr, errWriter, err := os.Pipe()
	if err != nil {
		return
	}
	cmd.Stdout, cmd.Stderr = outWriter, errWriter
	if err = cmd.Start(); err != nil {
		_, _ = io.WriteString(s.channel.Stderr(), err.Error()+"\n")
	}
	_, _ = outWriter.Close(), errWriter.Close()
	go func() {
		_, _ = io.Copy(stdin, s.channel)
		_ = stdin.Close()
	}()
	go func() {
		ssh.DiscardRequests(reqs) // to the end of the channel
		_, _ = stdout.Close(), stderr.Close()
	}()
	copied := make(chan struct{}, 2)
	for from, to := range map[*os.File]io.Writer{stdout: s.channel, stderr: s.channel.Stderr()} {
		go func() {
			_, _ = io.Copy(to, from)
			copied <- struct{}{}
		}()
	}
	// Like sshd: the exit status goes out at once, the channel is closed when
	// the outputs are at their end or the client has closed it.
	code := 127
	if err == nil {
		code = exitCode(cmd.Wait())
	}
	_ = stdin.Close()
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(code)}))
	<-copied
	<-copied
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

func (c *conn) environ() []string {
	env := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/games", "HOME=" + c.host.options.Dir, "USER=" + c.ssh.User(), "LANG=C",
	}
	for k, v := range c.host.options.Env {
		env = append(env, k+"="+v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agent != "" {
		env = append(env, "SSH_AUTH_SOCK="+c.agent)
	}
	return env
}

// forwardAgent makes the connection's agent socket. As with OpenSSH, it is
// granted once.
func (c *conn) forwardAgent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agent != "" || c.host.options.RefuseAgent {
		return false
	}
	folder, err := os.MkdirTemp("", "agent-") // the path of a socket is short
	if err != nil {
		return false
	}
	socket := filepath.Join(folder, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return false
	}
	c.agent = socket
	go func() {
		_ = c.ssh.Wait()
		_ = listener.Close()
		_ = os.RemoveAll(folder)
	}()
	c.wait.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			c.wait.Go(func() { c.askAgent(from) })
		}
	})
	return true
}

func (c *conn) askAgent(from net.Conn) {
	ch, reqs, err := c.ssh.OpenChannel("auth-agent@openssh.com", nil)
	if err != nil {
		_ = from.Close()
		return
	}
	go ssh.DiscardRequests(reqs)
	join(ch, from)
}
