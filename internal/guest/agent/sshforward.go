package agent

import (
	"errors"
	"io"
	"net"
	"os"
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
	connectTo(c, "tcp", net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10)))
}

// serveDirectLocal connects a client to a Unix socket (OpenSSH's PROTOCOL, section 2.4). It is the agent that opens it,
// whoever logged in: a key that opens the guest opens it as root as well.
func serveDirectLocal(c ssh.NewChannel) {
	var to struct {
		Path      string
		Reserved  string
		Reserved2 uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil {
		_ = c.Reject(ssh.ConnectionFailed, "bad direct-streamlocal request")
		return
	}
	connectTo(c, "unix", to.Path)
}

// connectTo joins a channel that a client opens to a connection made for it.
func connectTo(c ssh.NewChannel, network, address string) {
	conn, err := net.DialTimeout(network, address, dialTimeout)
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

// forwards are the addresses and sockets in the guest on which one connection's client wants to be connected to (ssh -R).
type forwards struct {
	client *ssh.ServerConn

	mu        sync.Mutex
	closed    bool
	listeners map[forward]net.Listener
}

// forward is one of them, as the client names it.
type forward interface {
	// listen begins it. answer tells the client what it left to us, which is in named.
	listen(client *ssh.ServerConn) (l net.Listener, named forward, answer []byte, err error)
	// channel is what the client is told of a connection to it; empty for one that cannot be told.
	channel(conn net.Conn) (kind string, extra []byte)
}

// forwardAddr is the payload of "tcpip-forward" and its opposite (RFC 4254, section 7.1).
type forwardAddr struct {
	Host string
	Port uint32
}

func (a forwardAddr) listen(*ssh.ServerConn) (l net.Listener, named forward, answer []byte, err error) {
	host := a.Host
	if host == "localhost" {
		host = "127.0.0.1" // whatever the image's /etc/hosts says
	}
	if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(uint64(a.Port), 10))); err != nil {
		return nil, nil, nil, err
	}
	if a.Port == 0 {
		a.Port = uint32(l.Addr().(*net.TCPAddr).Port)
		answer = ssh.Marshal(struct{ Port uint32 }{a.Port})
	}
	return l, a, answer, nil
}

func (a forwardAddr) channel(conn net.Conn) (kind string, extra []byte) {
	origin, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return "", nil
	}
	return "forwarded-tcpip", ssh.Marshal(struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}{a.Host, a.Port, origin.IP.String(), uint32(origin.Port)})
}

// forwardSocket is the payload of "streamlocal-forward@openssh.com" and its opposite (OpenSSH's PROTOCOL, section 2.4).
type forwardSocket struct{ Path string }

func (s forwardSocket) listen(client *ssh.ServerConn) (l net.Listener, named forward, answer []byte, err error) {
	if l, err = net.Listen("unix", s.Path); err != nil {
		return nil, nil, nil, err
	}
	if err := errors.Join(os.Chmod(s.Path, 0o600), chownTo(client.User(), s.Path)); err != nil {
		return nil, nil, nil, errors.Join(err, l.Close())
	}
	return l, s, nil, nil
}

func (s forwardSocket) channel(net.Conn) (kind string, extra []byte) {
	return "forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{s.Path, ""})
}

// chownTo makes files a user's.
func chownTo(user string, paths ...string) error {
	who, err := lookupAccount(user)
	for _, path := range paths {
		if err == nil {
			err = os.Chown(path, int(who.uid), int(who.gid))
		}
	}
	return err
}

func newForwards(client *ssh.ServerConn) *forwards {
	return &forwards{client: client, listeners: map[forward]net.Listener{}}
}

// serve answers the connection's own requests until it ends.
func (f *forwards) serve(requests <-chan *ssh.Request) {
	for r := range requests {
		var ok bool
		var answer []byte
		var addr forwardAddr
		var socket forwardSocket
		switch r.Type {
		case "tcpip-forward":
			if ok = ssh.Unmarshal(r.Payload, &addr) == nil; ok {
				ok, answer = f.begin(addr)
			}
		case "cancel-tcpip-forward":
			ok = ssh.Unmarshal(r.Payload, &addr) == nil && f.cancel(addr)
		case "streamlocal-forward@openssh.com":
			if ok = ssh.Unmarshal(r.Payload, &socket) == nil; ok {
				ok, _ = f.begin(socket)
			}
		case "cancel-streamlocal-forward@openssh.com":
			ok = ssh.Unmarshal(r.Payload, &socket) == nil && f.cancel(socket)
		}
		if r.WantReply {
			_ = r.Reply(ok, answer)
		}
	}
}

func (f *forwards) begin(wanted forward) (ok bool, answer []byte) {
	l, named, answer, err := wanted.listen(f.client)
	if err != nil {
		return false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.listeners[named] != nil {
		_ = l.Close()
		return false, nil
	}
	f.listeners[named] = l
	go f.accept(l, named)
	return true, answer
}

func (f *forwards) accept(l net.Listener, to forward) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		kind, extra := to.channel(conn)
		if kind == "" {
			_ = conn.Close()
			continue
		}
		go openTo(f.client, conn, kind, extra)
	}
}

func (f *forwards) cancel(named forward) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.listeners[named]
	if l == nil {
		return false
	}
	delete(f.listeners, named)
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
