package engine

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
)

// A connection that cannot be closed by halves says so: net/http/httputil waits for both directions of one that can.
func TestHalfOfAConnection(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _ = errors.Join(a.Close(), b.Close()) }()
	c := heardConn{a, new(atomic.Int64)}
	if err := c.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("closed half of it: %v", err)
	}
	go func() { _, _ = b.Write([]byte("x")) }()
	if _, err := c.Read(make([]byte, 1)); err != nil || c.heard.Load() != 1 {
		t.Errorf("heard %d times, %v", c.heard.Load(), err)
	}
}
