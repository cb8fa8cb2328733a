package firecracker

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// handshakeWait bounds the VMM's own answer to a connection; the guest is not asked for it.
const handshakeWait = 5 * time.Second

// dialVsock connects to a port of the guest through the socket of Firecracker's vsock (docs/vsock.md): "CONNECT port",
// answered by "OK hostport" once the guest accepted. A guest that does not listen yet makes the VMM hang up. What was
// accepted may still be dropped, after a restore for one: only an answered hello says that the guest is there.
func dialVsock(ctx context.Context, socket string, port uint32) (net.Conn, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("connect to guest agent: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = handshake(conn, port)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to guest agent: %w", err)
	}
	return conn, conn.SetDeadline(time.Time{})
}

func handshake(conn net.Conn, port uint32) error {
	if err := conn.SetDeadline(time.Now().Add(handshakeWait)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", port); err != nil {
		return err
	}
	// Byte by byte: what follows the line is the guest's.
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := conn.Read(b)
		if n == 1 && b[0] == '\n' {
			break
		}
		line = append(line, b[:n]...)
		if err != nil {
			return fmt.Errorf("vsock port %d: no answer (%w): the guest does not listen yet", port, err)
		}
		if len(line) > 32 {
			return fmt.Errorf("vsock port %d: answered %.40q", port, line)
		}
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("vsock port %d: answered %.40q", port, line)
	}
	return nil
}
