package client

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
)

// A daemon that is killed leaves connections in its queue that the kernel had made: they must read as "no daemon".
func TestOnlyAnAnswerCounts(t *testing.T) {
	for name, behave := range map[string]func(net.Conn){
		"closes at once":      func(c net.Conn) { c.Close() },
		"answers with noise":  func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n")); c.Close() },
		"dies in the answer":  func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx")); c.Close() },
		"goes on by itself":   func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxmore")) },
		"does not keep alive": func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			sock := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", sock)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					buf := make([]byte, 4096)
					_, _ = c.Read(buf)
					behave(c)
				}
			}()
			if conn, err := Dial(t.Context(), sock); !errors.Is(err, ErrNoDaemon) {
				t.Errorf("%v, %v", conn, err)
			}
		})
	}
}
