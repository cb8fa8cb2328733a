package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	tryFor   = 2 * time.Second  // one server: clients ask again after 5 s, and there may be two
	askFor   = 8 * time.Second  // all of them
	avoidFor = 30 * time.Second // a server that did not answer is asked last
)

// upstream are the servers that the host asks.
type upstream struct {
	conf *resolvConf
	self netip.Addr
	wait time.Duration // for one server

	mu    sync.Mutex
	avoid map[netip.AddrPort]time.Time // until when
}

func newUpstream(path string, self netip.Addr) *upstream {
	return &upstream{conf: &resolvConf{path: path}, self: self, wait: tryFor, avoid: map[netip.AddrPort]time.Time{}}
}

// ask passes a query on, to one server after the other until one has an answer. Where all refuse, that is the answer.
func (u *upstream) ask(ctx context.Context, q query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	servers, err := u.servers()
	if err != nil {
		return nil, err
	}
	var refusal []byte
	var errs []error
	for _, server := range servers {
		answer, code, err := exchange(ctx, u.wait, server, q)
		if err != nil {
			u.shun(server)
			errs = append(errs, fmt.Errorf("ask %s: %w", server, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		u.trust(server)
		switch code {
		case dnsmessage.RCodeServerFailure, dnsmessage.RCodeNotImplemented, dnsmessage.RCodeRefused:
			refusal = answer
			continue
		}
		return answer, nil
	}
	if refusal != nil {
		return refusal, nil
	}
	return nil, errors.Join(errs...)
}

// servers are those of resolv.conf in its order, but for those that lately did not answer.
func (u *upstream) servers() ([]netip.AddrPort, error) {
	all, err := u.conf.servers()
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var good, bad []netip.AddrPort
	for _, s := range all {
		switch until, avoided := u.avoid[s]; {
		case s.Addr() == u.self: // would come back to us, for ever
		case avoided && time.Now().Before(until):
			bad = append(bad, s)
		default:
			good = append(good, s)
		}
	}
	if len(good)+len(bad) == 0 {
		return nil, fmt.Errorf("%s names no server to ask", u.conf.path)
	}
	return append(good, bad...), nil
}

func (u *upstream) shun(s netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.avoid[s] = time.Now().Add(avoidFor)
}

func (u *upstream) trust(s netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.avoid, s)
}

// exchange asks one server, by TCP when its answer does not fit into a datagram.
func exchange(ctx context.Context, wait time.Duration, server netip.AddrPort, q query) (answer []byte, code dnsmessage.RCode, err error) {
	answer, h, err := try(ctx, wait, "udp", server, q)
	if err == nil && h.Truncated {
		// Where TCP does not get through, the client is told of the truncation, and has what did fit.
		if whole, wh, werr := try(ctx, wait, "tcp", server, q); werr == nil {
			answer, h = whole, wh
		}
	}
	return answer, h.RCode, err
}

func try(ctx context.Context, wait time.Duration, network string, server netip.AddrPort, q query) ([]byte, dnsmessage.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var none dnsmessage.Header
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, none, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	// A number of our own, on a port of its own: a stranger who would answer in the server's place must guess both.
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails since Go 1.24
	message := slices.Clone(q.bytes)
	copy(message, id[:])
	send, receive := datagram(conn)
	if network == "tcp" {
		send = func(b []byte) error { return writeMessage(conn, b) }
		receive = func() ([]byte, error) { return readMessage(conn, 1<<16-1) }
	}
	if err := send(message); err != nil {
		return nil, none, err
	}
	for {
		answer, err := receive()
		if err != nil {
			return nil, none, err
		}
		if h, ok := answers(answer, binary.BigEndian.Uint16(id[:]), q.question); ok {
			binary.BigEndian.PutUint16(answer, q.header.ID)
			return answer, h, nil
		}
	}
}

func datagram(conn net.Conn) (send func([]byte) error, receive func() ([]byte, error)) {
	send = func(b []byte) error {
		_, err := conn.Write(b)
		return err
	}
	buf := make([]byte, 1<<16)
	return send, func() ([]byte, error) {
		n, err := conn.Read(buf)
		return buf[:n], err
	}
}

// answers says whether a message answers the question that was asked.
func answers(b []byte, id uint16, asked dnsmessage.Question) (dnsmessage.Header, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.ID != id {
		return h, false
	}
	got, err := p.Question()
	if errors.Is(err, dnsmessage.ErrSectionDone) { // some leave it out of a refusal
		return h, h.RCode != dnsmessage.RCodeSuccess
	}
	return h, err == nil && got.Type == asked.Type && got.Class == asked.Class &&
		strings.EqualFold(got.Name.String(), asked.Name.String())
}
