package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	"banger/internal/api"
	"banger/internal/guest"
)

// A daemon that is killed leaves connections in its queue that the kernel had made: they must read as "no daemon".
func TestOnlyAnAnswerCounts(t *testing.T) {
	for name, behave := range noDaemons {
		t.Run(name, func(t *testing.T) {
			sock := filepath.Join(t.TempDir(), "s")
			defer misbehave(t, sock, behave).Close()
			if conn, err := Dial(t.Context(), sock); !errors.Is(err, ErrNoDaemon) {
				t.Errorf("%v, %v", conn, err)
			}
		})
	}
}

// One that is killed between the connection and the first word on it cannot even be greeted, and nothing reached it.
func TestNobodyToGreet(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connect(t.Context(), sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = l.Close() // the kernel drops what was in the queue
	if n, err := (&greeting{Conn: conn}).Write([]byte("a request")); n != 0 || !errors.Is(err, ErrNoDaemon) || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%d, %v", n, err)
	}
}

// A request that goes out with the hello is made again, once, where nobody answered that: it did nothing.
func TestStreamIsAskedForAgain(t *testing.T) {
	for name, behave := range noDaemons {
		if name == "goes on by itself" { // here the answer to the request stands there
			continue
		}
		t.Run(name, func(t *testing.T) {
			sock := filepath.Join(t.TempDir(), "s")
			dead := misbehave(t, sock, behave)
			asked := 0
			mux := http.NewServeMux()
			mux.HandleFunc("GET "+api.PathVersion, func(http.ResponseWriter, *http.Request) {})
			mux.HandleFunc("POST "+api.PathVMExec, func(w http.ResponseWriter, r *http.Request) {
				asked++
				conn, in, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				body, _ := io.ReadAll(io.LimitReader(in, r.ContentLength))
				_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: banger-exec\r\n\r\n" + string(body)))
			})
			srv := &http.Server{Handler: mux}
			defer srv.Close()
			started := 0
			c := New(sock, WithStart(func(context.Context) error {
				started++
				_ = dead.Close()
				l, err := net.Listen("unix", sock)
				go func() { _ = srv.Serve(l) }()
				return err
			}))
			stream, err := c.Exec(t.Context(), "web", guest.ExecRequest{Argv: []string{"true"}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(stream)
			if err != nil || string(got) != `{"argv":["true"]}` || asked != 1 || started != 1 {
				t.Errorf("the stream has %q, %v; asked %d times, started %d", got, err, asked, started)
			}
		})
	}
}

// noDaemons are ways not to answer.
var noDaemons = map[string]func(net.Conn){
	"closes at once":      func(c net.Conn) { c.Close() },
	"answers with noise":  func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n")); c.Close() },
	"dies in the answer":  func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx")); c.Close() },
	"goes on by itself":   func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxmore")) },
	"does not keep alive": func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")); c.Close() },
}

// misbehave listens on a socket, and does to each connection what behave does once something came on it.
func misbehave(t *testing.T, sock string, behave func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
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
	return l
}
