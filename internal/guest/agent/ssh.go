package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest"
	"banger/internal/vm"
)

// sshGrace bounds key exchange and authentication. Under emulation the former alone can take a second.
const sshGrace = 2 * time.Minute

// handleSSH serves one SSH connection over the upgraded stream.
func (s *Server) handleSSH(w http.ResponseWriter, r *http.Request) {
	config, err := s.sshConfig()
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	conn, err := hijack(w, r, guest.UpgradeRaw)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(sshGrace))
	client, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return // the client was told by the protocol what can be told
	}
	_ = conn.SetDeadline(time.Time{})
	s.serveSSH(client, channels, requests)
}

// sshConfig is made for each connection from the configuration of the moment: a fork gets new keys.
func (s *Server) sshConfig() (*ssh.ServerConfig, error) {
	conf := s.configured()
	if conf == nil || conf.SSHHostKeyPEM == "" {
		return nil, vm.Errorf(vm.CodeUnavailable, "serve ssh: the guest was given no host key yet")
	}
	key, err := ssh.ParsePrivateKey([]byte(conf.SSHHostKeyPEM))
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "serve ssh: read the host key: %w", err)
	}
	allowed, err := parseAuthorized(conf.AuthorizedKeys)
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "serve ssh: %w", err)
	}
	config := &ssh.ServerConfig{
		// OpenSSH's client tells only one of its own kind that nobody reads a command's output any more ("eow").
		ServerVersion: "SSH-2.0-OpenSSH_9.0 banger",
		PublicKeyCallback: func(c ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			for _, a := range allowed {
				if bytes.Equal(a.Marshal(), offered.Marshal()) {
					_, err := lookupAccount(c.User())
					return nil, err
				}
			}
			return nil, errors.New("key not authorized")
		},
	}
	config.AddHostKey(key)
	return config, nil
}

// parseAuthorized reads authorized_keys lines. Options would restrict a key; since none is obeyed, none is accepted.
func parseAuthorized(lines []string) ([]ssh.PublicKey, error) {
	keys := make([]ssh.PublicKey, 0, len(lines))
	for _, line := range lines {
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		switch {
		case err != nil:
			return nil, fmt.Errorf("read authorized key %q: %w", line, err)
		case len(options) > 0 || len(bytes.TrimSpace(rest)) > 0:
			return nil, fmt.Errorf("read authorized key %q: want one key without options", line)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// serveSSH serves an authenticated connection until it ends.
func (s *Server) serveSSH(client *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	forwards := newForwards(client)
	defer forwards.close()
	go forwards.serve(requests)
	for c := range channels {
		switch c.ChannelType() {
		case "session":
			go s.serveSession(client, c)
		case "direct-tcpip":
			go serveDirect(c)
		case "direct-streamlocal@openssh.com":
			go serveDirectLocal(c)
		default:
			_ = c.Reject(ssh.UnknownChannelType, "unknown channel type "+c.ChannelType())
		}
	}
}
