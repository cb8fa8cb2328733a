package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"banger/internal/guest"
	"banger/internal/vm"
)

// maxBody bounds a JSON request; an exec with the kernel's whole two megabytes of arguments still fits.
const maxBody = 8 << 20

// readJSON reads the whole body into v, or answers why it cannot.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, unread(r, err))
		return false
	}
	return true
}

func unread(r *http.Request, err error) error {
	return vm.Errorf(vm.CodeInvalid, "read request %s: %w", r.URL.Path, err)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

// writeError answers with a guest.ErrorBody.
func writeError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(errorBody(err))
}

func errorBody(err error) []byte {
	b, _ := json.Marshal(guest.ErrorBody{Code: string(vm.CodeOf(err)), Message: err.Error(), Hint: vm.HintOf(err)})
	return b
}

// hijack takes the connection of a request that asked for the protocol token. The answer, 101, goes out with the first
// bytes written: every write to the channel stops the machine for a moment.
func hijack(w http.ResponseWriter, r *http.Request, token string) (*upgraded, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), token) {
		return nil, vm.Errorf(vm.CodeInvalid, "request %s needs the header Upgrade: %s", r.URL.Path, token)
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil, errors.New("this connection cannot be upgraded")
	}
	conn, buffered, err := h.Hijack()
	if err != nil {
		return nil, err
	}
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + token + "\r\n\r\n"
	return &upgraded{Conn: conn, in: buffered.Reader, head: []byte(head)}, nil
}

// hijackJSON takes the connection of a request with a JSON body, and reads that into v, or answers why it cannot. It takes the
// connection first: net/http would begin to watch it for the client's leaving once the body is read, and have to be stopped.
func hijackJSON(w http.ResponseWriter, r *http.Request, token string, v any) (*upgraded, bool) {
	size := r.ContentLength
	if size < 0 || size > maxBody {
		writeError(w, http.StatusBadRequest, unread(r, fmt.Errorf("its length must be told, and be at most %d bytes", maxBody)))
		return nil, false
	}
	conn, err := hijack(w, r, token)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return nil, false
	}
	body := make([]byte, size)
	if _, err = io.ReadFull(conn, body); err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		conn.refuse(http.StatusBadRequest, unread(r, err))
		return nil, false
	}
	return conn, true
}

// upgraded is a hijacked connection: it reads what was buffered first, and writes its head before anything else. The
// first Write must have returned before others run at the same time.
type upgraded struct {
	net.Conn
	in   *bufio.Reader
	head []byte
}

// refuse answers with an error after all, as writeError does, and closes the connection. Nothing must have been written.
func (u *upgraded) refuse(status int, err error) {
	body := errorBody(err)
	answer := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Close: true, Header: http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	_ = answer.Write(u.Conn)
	_ = u.Close()
}

func (u *upgraded) Read(p []byte) (int, error) { return u.in.Read(p) }

func (u *upgraded) Write(p []byte) (int, error) {
	if u.head == nil {
		return u.Conn.Write(p)
	}
	head := u.head
	u.head = nil
	n, err := u.Conn.Write(append(head, p...))
	return max(0, n-len(head)), err
}
