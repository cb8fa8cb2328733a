package vmm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"banger/internal/act"
	"banger/internal/vm"
)

// maxSocketPath is what sun_path holds, less its end.
const maxSocketPath = 107

// RemoveStale removes what lies at a socket's path before a VMM makes its own there, unless somebody still listens.
func RemoveStale(ctx context.Context, path string) error {
	if len(path) > maxSocketPath {
		return vm.Errorf(vm.CodeInvalid, "socket path %s has %d bytes, unix sockets take %d", path, len(path), maxSocketPath)
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 { // a link to one as well
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || errors.Is(err, syscall.EAGAIN) { // EAGAIN: its backlog is full
			return vm.Errorf(vm.CodeConflict, "socket %s is in use: a machine runs behind it", path)
		}
	}
	err := act.Do(ctx, "socket.remove", func() error { return os.Remove(path) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
