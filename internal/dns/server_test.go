package dns

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// server is a Server that serves until the test ends.
type server struct {
	*Server
	at   string
	conf string
	stop func()
}

func start(t *testing.T, subnet string, upstreams ...string) *server {
	t.Helper()
	return startPatient(t, 300*time.Millisecond, subnet, upstreams...)
}

// startPatient waits for a silent upstream as long as it is told to.
func startPatient(t *testing.T, wait time.Duration, subnet string, upstreams ...string) *server {
	t.Helper()
	s := &server{conf: filepath.Join(t.TempDir(), "resolv.conf")}
	s.resolvers(t, upstreams...)
	s.Server = New(Config{
		Subnet: netip.MustParsePrefix(subnet), Address: netip.MustParseAddr("127.9.9.9"), Hosts: s.conf,
		Log: slog.New(slog.DiscardHandler),
	})
	s.upstream.wait = wait
	s.SetNames(map[string]netip.Addr{"web": netip.MustParseAddr("127.30.0.2"), "db-1": netip.MustParseAddr("127.30.0.3")})
	k := listen(t)
	s.at = k.udp.LocalAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, k) }()
	s.stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
			ended <- nil
		case <-time.After(5 * time.Second):
			t.Error("it does not stop")
		}
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) resolvers(t *testing.T, upstreams ...string) {
	t.Helper()
	text := "# a comment\nsearch example.com\noptions edns0\n"
	for _, u := range upstreams {
		text += "nameserver " + u + "\n"
	}
	if err := os.WriteFile(s.conf+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.conf+".new", s.conf); err != nil {
		t.Fatal(err)
	}
}

type question struct {
	name string
	kind dnsmessage.Type
	udp  uint16 // bytes that the client takes, by EDNS; 0 = says nothing
	tcp  bool
}

func (s *server) ask(t *testing.T, q question) (dnsmessage.Message, error) {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 0x1234, RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(q.name), Type: q.kind, Class: dnsmessage.ClassINET,
	}}}
	if q.udp > 0 {
		opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		_ = opt.Header.SetEDNS0(int(q.udp), 0, false)
		m.Additionals = append(m.Additionals, opt)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return s.send(t, b, q.tcp, 20*time.Second)
}

func (s *server) send(t *testing.T, b []byte, tcp bool, wait time.Duration) (m dnsmessage.Message, err error) {
	t.Helper()
	network := "udp"
	if tcp {
		network = "tcp"
	}
	c, err := net.Dial(network, s.at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	buf := make([]byte, 1<<16)
	if tcp {
		if err := writeMessage(c, b); err != nil {
			return m, err
		}
		if buf, err = readMessage(c, 1<<16-1); err != nil {
			return m, err
		}
	} else {
		if _, err := c.Write(b); err != nil {
			return m, err
		}
		n, err := c.Read(buf)
		if err != nil {
			return m, err
		}
		buf = buf[:n]
	}
	if err := m.Unpack(buf); err != nil {
		t.Fatalf("the answer is nonsense: %v", err)
	}
	if m.ID != binary.BigEndian.Uint16(b) || !m.Response {
		t.Errorf("answer %+v", m.Header)
	}
	return m, nil
}

// said is an answer in short: its code, flags and records.
func said(m dnsmessage.Message) string {
	w := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Truncated {
		w = append(w, "truncated")
	}
	for _, a := range m.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			w = append(w, netip.AddrFrom4(b.A).String())
		case *dnsmessage.PTRResource:
			w = append(w, b.PTR.String())
		case *dnsmessage.TXTResource:
			w = append(w, b.TXT[0])
		}
	}
	return strings.Join(w, " ")
}
