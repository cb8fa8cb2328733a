package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Listen opens the API's socket, mode 0600. Who calls holds the daemon's lock, so a socket that lies there is stale.
// Only connections of the daemon's own user and of root are accepted, whatever became of the file's mode.
func Listen(ctx context.Context, path string, log *slog.Logger) (net.Listener, error) {
	err := act.Do(ctx, "socket.remove", func() error { return os.Remove(path) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the stale socket: %w", err)
	}
	var l net.Listener
	err = act.Do(ctx, "socket", func() (err error) {
		l, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	if err := act.Do(ctx, "socket.mode", func() error { return os.Chmod(path, 0o600) }); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("make the socket private: %w", err)
	}
	return &ownListener{l.(*net.UnixListener), log}, nil
}

type ownListener struct {
	*net.UnixListener
	log *slog.Logger
}

// Accept returns the next connection of somebody who may command this daemon.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peer(c)
		if err == nil && (uid == 0 || uid == uint32(os.Geteuid())) {
			return c, nil
		}
		l.log.Warn("refused a client", "uid", uid, "error", err)
		_ = c.Close()
	}
}

// peer is the user at the other end, as the kernel knows it.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
