package agent

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest"
)

// sshSession is one channel of type "session" (RFC 4254, section 6): at most one command, shell or subsystem. Its
// methods are called by the one goroutine that reads its requests.
type sshSession struct {
	s       *Server
	client  *ssh.ServerConn
	channel ssh.Channel
	env     []string
	tty     *ptyRequest
	agent   *agentSocket // forwarded from the client; nil = none
	running bool
	process *process // nil before it is started

	// follow sees what was begun to its end. It runs once the request is answered: the end must not overtake the answer.
	follow func()
}

// ptyRequest is the payload of "pty-req".
type ptyRequest struct {
	Term                      string
	Cols, Rows, Width, Height uint32
	Modes                     string
}

func (s *Server) serveSession(client *ssh.ServerConn, c ssh.NewChannel) {
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	x := &sshSession{s: s, client: client, channel: channel}
	for r := range requests {
		ok := x.handle(r)
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if x.follow != nil {
			go x.follow()
			x.follow = nil
		}
	}
	// The channel is closed, by us after the end of the command or by a client that went away.
	if x.process != nil {
		x.process.Hangup()
	}
	if x.agent != nil {
		x.agent.close()
	}
	_ = channel.Close()
}

// handle does what a request asks for and tells whether it could. Requests that come after the start and would change
// it are refused.
func (x *sshSession) handle(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		var kv struct{ Key, Value string }
		if x.running || ssh.Unmarshal(r.Payload, &kv) != nil || !acceptEnv(kv.Key) {
			return false
		}
		x.env = append(x.env, kv.Key+"="+kv.Value)
		return true
	case "pty-req":
		var p ptyRequest
		if x.running || x.tty != nil || ssh.Unmarshal(r.Payload, &p) != nil {
			return false
		}
		x.tty = &p
		return true
	case "auth-agent-req@openssh.com":
		if x.running || x.agent != nil {
			return false
		}
		var err error
		x.agent, err = forwardAgent(x.client)
		return err == nil
	case "window-change":
		var size struct{ Cols, Rows, Width, Height uint32 }
		return ssh.Unmarshal(r.Payload, &size) == nil && x.process != nil &&
			x.process.Resize(uint16(size.Rows), uint16(size.Cols)) == nil
	case "signal":
		var sig struct{ Name string }
		return ssh.Unmarshal(r.Payload, &sig) == nil && x.process != nil && x.process.Signal(sig.Name) == nil
	case "eow@openssh.com": // OpenSSH's PROTOCOL, section 2.1
		if x.process != nil {
			x.process.Unread()
		}
		return true
	case "shell", "exec", "subsystem":
		return x.begin(r)
	}
	return false
}

// acceptEnv tells which variables a client may set: what Debian's sshd takes, and what colours need.
func acceptEnv(key string) bool {
	return strings.HasPrefix(key, "LC_") || slices.Contains([]string{"LANG", "COLORTERM", "NO_COLOR"}, key)
}

// begin starts what the session is for.
func (x *sshSession) begin(r *ssh.Request) bool {
	var payload struct{ Value string }
	if x.running || (r.Type != "shell" && ssh.Unmarshal(r.Payload, &payload) != nil) {
		return false
	}
	who, err := lookupAccount(x.client.User())
	if err != nil {
		return false // it was there when the client logged in
	}
	switch {
	case r.Type == "shell":
		return x.start(who.shell, "-l")
	case r.Type == "exec":
		return x.start(who.shell, "-c", payload.Value)
	case payload.Value == "sftp":
		return x.began(x.s.startSFTP(x.request(), x.channel, x.channel.Stderr()))
	}
	return false
}

// start runs argv in place of the client's command.
func (x *sshSession) start(argv ...string) bool {
	req := x.request()
	req.Argv = argv
	return x.began(x.s.start(req, x.channel, x.channel.Stderr()))
}

// request is what the session's earlier requests make of any command.
func (x *sshSession) request() guest.ExecRequest {
	req := guest.ExecRequest{Env: x.env, User: x.client.User(), Stdin: true}
	if x.agent != nil {
		if err := x.agent.giveTo(x.client.User()); err == nil {
			req.Env = append(req.Env, "SSH_AUTH_SOCK="+x.agent.path())
		}
	}
	if x.tty != nil {
		req.TTY, req.Rows, req.Cols = true, uint16(x.tty.Rows), uint16(x.tty.Cols)
		if x.tty.Term != "" {
			req.Env = append(req.Env, "TERM="+x.tty.Term)
		}
	}
	return req
}

// began takes up a command that was started. It reports true also when it could not be: the client then gets the reason
// and the status as from a shell.
func (x *sshSession) began(p *process, err error) bool {
	x.running = true
	if err != nil {
		exit := guest.ExecExit{Code: codeCannot, Reason: err.Error()}
		if e := (*startError)(nil); errors.As(err, &e) {
			exit = e.exit
		}
		x.follow = func() {
			_, _ = fmt.Fprintln(x.channel.Stderr(), exit.Reason)
			x.end(exit)
		}
		return true
	}
	x.process = p
	x.follow = func() {
		go func() {
			_, _ = io.Copy(p.Stdin, x.channel)
			_ = p.Stdin.Close()
		}()
		x.end(p.Wait())
	}
	return true
}

// end tells the client how it ended and closes the channel.
func (x *sshSession) end(exit guest.ExecExit) {
	if exit.Signal == "" {
		_, _ = x.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(exit.Code)}))
	} else {
		_, _ = x.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name     string
			Dumped   bool
			Message  string
			Language string
		}{Name: signalName(exit.Signal)}))
	}
	_ = x.channel.Close()
}

// signalName is a signal as the protocol knows it: without SIG, and the few of RFC 4254 only.
func signalName(sig string) string {
	name := strings.TrimPrefix(sig, "SIG")
	known := []string{"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"}
	if slices.Contains(known, name) {
		return name
	}
	return name + "@openssh.com"
}
