package dns

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// fakeUpstream answers every question by reply, on UDP and TCP; nil = says nothing.
type fakeUpstream struct {
	at    netip.AddrPort
	asked atomic.Int32
}

// listen takes a free port of both kinds. The kernel chooses one that is free for UDP: by TCP, a connection of another
// test may be on it, and then there is another choice.
func listen(t *testing.T) *Sockets {
	t.Helper()
	for range 100 {
		k, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
		if err == nil {
			return k
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil
}

func startUpstream(t *testing.T, reply func(q dnsmessage.Message, tcp bool) *dnsmessage.Message) *fakeUpstream {
	t.Helper()
	k := listen(t)
	t.Cleanup(k.Close)
	u := &fakeUpstream{at: k.udp.LocalAddr().(*net.UDPAddr).AddrPort()}
	handle := func(b []byte, tcp bool) []byte {
		u.asked.Add(1)
		var q dnsmessage.Message
		if err := q.Unpack(b); err != nil {
			t.Errorf("the upstream was asked nonsense: %v", err)
			return nil
		}
		r := reply(q, tcp)
		if r == nil {
			return nil
		}
		out, err := r.Pack()
		if err != nil {
			t.Errorf("pack: %v", err)
		}
		return out
	}
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := k.udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if out := handle(buf[:n], false); out != nil {
				_, _ = k.udp.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	go func() {
		for {
			c, err := k.tcp.Accept()
			if err != nil {
				return
			}
			b, err := readMessage(c, 1<<16-1)
			if err == nil {
				if out := handle(b, true); out != nil {
					_ = writeMessage(c, out)
				}
			}
			_ = c.Close()
		}
	}()
	return u
}

// reply answers a question with text records; more than fit into a datagram for large.
func reply(q dnsmessage.Message, texts ...string) *dnsmessage.Message {
	m := &dnsmessage.Message{Header: q.Header, Questions: q.Questions}
	m.Response = true
	for _, text := range texts {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.TXTResource{TXT: []string{text}},
		})
	}
	return m
}

func code(c dnsmessage.RCode) func(dnsmessage.Message, bool) *dnsmessage.Message {
	return func(q dnsmessage.Message, _ bool) *dnsmessage.Message {
		m := reply(q)
		m.RCode = c
		return m
	}
}

func saying(texts ...string) func(dnsmessage.Message, bool) *dnsmessage.Message {
	return func(q dnsmessage.Message, _ bool) *dnsmessage.Message { return reply(q, texts...) }
}
