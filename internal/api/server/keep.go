package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Keep listens as Listen does, and anew each time that somebody removed the socket, or the directory it lies in, which
// ensure makes: a daemon that nobody can reach cannot be stopped either. It ends with the listener.
func Keep(ctx context.Context, path string, ensure func(context.Context) error, log *slog.Logger) (net.Listener, error) {
	ctx, cancel := context.WithCancel(act.In(ctx, "listen"))
	first, id, err := listenAt(ctx, path, log)
	if err != nil {
		cancel()
		return nil, err
	}
	k := &kept{path: path, ensure: ensure, log: log, now: first, cancel: cancel}
	k.watching.Go(func() { k.watch(ctx, id) })
	return k, nil
}

type kept struct {
	path     string
	ensure   func(context.Context) error
	log      *slog.Logger
	cancel   context.CancelFunc
	watching sync.WaitGroup

	mu  sync.Mutex
	now *ownListener
}

func listenAt(ctx context.Context, path string, log *slog.Logger) (*ownListener, os.FileInfo, error) {
	l, err := Listen(ctx, path, log)
	if err != nil {
		return nil, nil, err
	}
	id, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, nil, fmt.Errorf("listen for clients: %w", err)
	}
	return l.(*ownListener), id, nil
}

func (k *kept) current() *ownListener {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// Accept implements net.Listener. A socket that is replaced goes unnoticed.
func (k *kept) Accept() (net.Conn, error) {
	for {
		l := k.current()
		c, err := l.Accept()
		if err == nil || k.current() == l {
			return c, err
		}
	}
}

// Addr implements net.Listener.
func (k *kept) Addr() net.Addr { return k.current().Addr() }

// Close implements net.Listener. The socket goes with it.
func (k *kept) Close() error {
	k.cancel()
	k.watching.Wait()
	return k.current().Close()
}

// How long after a failure it is tried again, twice as long each time: nothing tells that a disk has room, or a directory
// its owner. The first is for a directory that is just being removed, file by file.
const (
	relistenFirst = 5 * time.Millisecond
	relistenMost  = time.Second
)

func (k *kept) watch(ctx context.Context, id os.FileInfo) {
	wait := relistenFirst
	for {
		err := untilReplaced(ctx, k.path, id)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			k.log.Warn("the socket was removed: listening anew", "socket", k.path)
			id, err = k.replace(ctx, id)
		}
		if err == nil {
			wait = relistenFirst
			continue
		}
		k.log.Error("the socket cannot be kept", "socket", k.path, "error", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, relistenMost)
		case <-ctx.Done():
			return
		}
	}
}

func (k *kept) replace(ctx context.Context, was os.FileInfo) (os.FileInfo, error) {
	if err := k.ensure(ctx); err != nil {
		return was, err
	}
	l, id, err := listenAt(ctx, k.path, k.log)
	if err != nil {
		return was, err
	}
	k.mu.Lock()
	old := k.now
	k.now = l
	k.mu.Unlock()
	old.SetUnlinkOnClose(false) // the path is the new one's
	return id, old.Close()
}

// untilReplaced returns nil when what lies at path is not the file id any more, else ctx's error or why it cannot tell.
func untilReplaced(ctx context.Context, path string, id os.FileInfo) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer func() { _ = f.Close() }()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	// A name that goes is a change of attributes: of the count of names.
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_DONT_FOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	buf := make([]byte, 4096)
	for {
		now, err := os.Lstat(path)
		if err != nil || !os.SameFile(now, id) {
			return nil //nolint:nilerr // what cannot be seen is not there for clients either
		}
		if _, err := f.Read(buf); err != nil {
			return fmt.Errorf("watch %s: %w", path, errors.Join(ctx.Err(), err))
		}
	}
}
