package agent

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// dialTimeout bounds a connection made for a client (ssh -L, -D, -W).
const dialTimeout = 30 * time.Second

// serveDirect connects a client to an address as seen from the guest (RFC 4254, section 7.2).
func serveDirect(c ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil {
		_ = c.Reject(ssh.ConnectionFailed, "bad direct-tcpip request")
		return
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10)), dialTimeout)
	if err != nil {
		_ = c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := c.Accept()
	if err != nil {
		_ = conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	join(channel, conn)
}

// halfCloser is a connection whose directions end one by one.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// join copies both ways until both have ended, and closes both.
func join(channel ssh.Channel, conn net.Conn) {
	var both sync.WaitGroup
	pump := func(to, from io.ReadWriteCloser) {
		_, err := io.Copy(to, from)
		if half, ok := to.(halfCloser); ok && err == nil {
			_ = half.CloseWrite()
			return
		}
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { pump(channel, conn) })
	both.Go(func() { pump(conn, channel) })
	both.Wait()
	_ = channel.Close()
	_ = conn.Close()
}

// forwards are the addresses in the guest on which one connection's client wants to be connected to (ssh -R).
type forwards struct {
	client *ssh.ServerConn

	mu        sync.Mutex
	closed    bool
	listeners map[forwardAddr]net.Listener
}

// forwardAddr is the payload of "tcpip-forward" and its opposite.
type forwardAddr struct {
	Host string
	Port uint32
}

func newForwards(client *ssh.ServerConn) *forwards {
	return &forwards{client: client, listeners: map[forwardAddr]net.Listener{}}
}

// serve answers the connection's own requests until it ends.
func (f *forwards) serve(requests <-chan *ssh.Request) {
	for r := range requests {
		var ok bool
		var answer []byte
		var addr forwardAddr
		switch r.Type {
		case "tcpip-forward":
			if ok = ssh.Unmarshal(r.Payload, &addr) == nil; ok {
				ok, answer = f.listen(addr)
			}
		case "cancel-tcpip-forward":
			ok = ssh.Unmarshal(r.Payload, &addr) == nil && f.cancel(addr)
		}
		if r.WantReply {
			_ = r.Reply(ok, answer)
		}
	}
}

// listen begins a forward. answer tells the port where the client left it to us.
func (f *forwards) listen(addr forwardAddr) (ok bool, answer []byte) {
	host := addr.Host
	if host == "localhost" {
		host = "127.0.0.1" // whatever the image's /etc/hosts says
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(uint64(addr.Port), 10)))
	if err != nil {
		return false, nil
	}
	if addr.Port == 0 {
		addr.Port = uint32(l.Addr().(*net.TCPAddr).Port)
		answer = ssh.Marshal(struct{ Port uint32 }{addr.Port})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.listeners[addr] != nil {
		_ = l.Close()
		return false, nil
	}
	f.listeners[addr] = l
	go f.accept(l, addr)
	return true, answer
}

func (f *forwards) accept(l net.Listener, addr forwardAddr) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		origin, ok := conn.RemoteAddr().(*net.TCPAddr)
		if !ok {
			_ = conn.Close()
			continue
		}
		go openTo(f.client, conn, "forwarded-tcpip", ssh.Marshal(struct {
			Host       string
			Port       uint32
			OriginHost string
			OriginPort uint32
		}{addr.Host, addr.Port, origin.IP.String(), uint32(origin.Port)}))
	}
}

func (f *forwards) cancel(addr forwardAddr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.listeners[addr]
	if l == nil {
		return false
	}
	delete(f.listeners, addr)
	return l.Close() == nil
}

func (f *forwards) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, l := range f.listeners {
		_ = l.Close()
	}
}

// openTo joins conn to a new channel to the client.
func openTo(client *ssh.ServerConn, conn net.Conn, kind string, extra []byte) {
	channel, requests, err := client.OpenChannel(kind, extra)
	if err != nil {
		_ = conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	join(channel, conn)
}

// agentSocket is a socket in the guest that reaches the client's ssh-agent.
type agentSocket struct {
	dir      string
	listener net.Listener
}

func forwardAgent(client *ssh.ServerConn) (*agentSocket, error) {
	dir, err := os.MkdirTemp("", "ssh-")
	if err != nil {
		return nil, err
	}
	a := &agentSocket{dir: dir}
	if a.listener, err = net.Listen("unix", a.path()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() {
		for {
			conn, err := a.listener.Accept()
			if err != nil {
				return
			}
			go openTo(client, conn, "auth-agent@openssh.com", nil)
		}
	}()
	return a, nil
}

func (a *agentSocket) path() string { return filepath.Join(a.dir, "agent") }

// giveTo makes the socket the user's, who alone may use it.
func (a *agentSocket) giveTo(user string) error {
	who, err := lookupAccount(user)
	if err != nil {
		return err
	}
	return errors.Join(os.Chown(a.path(), int(who.uid), int(who.gid)), os.Chown(a.dir, int(who.uid), int(who.gid)))
}

func (a *agentSocket) close() {
	_ = a.listener.Close()
	_ = os.RemoveAll(a.dir)
}
