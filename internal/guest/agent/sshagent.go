package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

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

// giveTo makes the socket the user's, who alone may use it: nobody else gets into its directory.
func (a *agentSocket) giveTo(user string) error { return chownTo(user, a.path(), a.dir) }

func (a *agentSocket) close() {
	_ = a.listener.Close()
	_ = os.RemoveAll(a.dir)
}
