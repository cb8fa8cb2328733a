package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestNames(t *testing.T) {
	up := startUpstream(t, saying("outside"))
	s := start(t, "127.0.0.0/8", up.at.String())
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{"web.vm.", dnsmessage.TypeA, "Success 127.30.0.2"},
		{"WEB.vM.", dnsmessage.TypeA, "Success 127.30.0.2"},
		{"db-1.vm.", dnsmessage.TypeALL, "Success 127.30.0.3"},
		{"web.vm.", dnsmessage.TypeAAAA, "Success"},
		{"absent.vm.", dnsmessage.TypeA, "NameError"},
		{"a.web.vm.", dnsmessage.TypeA, "NameError"},
		{"vm.", dnsmessage.TypeA, "Success"},
		{"2.0.30.127.in-addr.arpa.", dnsmessage.TypePTR, "Success web.vm."},
		{"2.0.30.127.in-addr.arpa.", dnsmessage.TypeA, "Success"},
		{"9.0.30.127.in-addr.arpa.", dnsmessage.TypePTR, "NameError"},
		{"vm.", typeAXFR, "Refused"},
		{"example.com.", typeIXFR, "Refused"},
	} {
		for _, tcp := range []bool{false, true} {
			for _, udp := range []uint16{0, 1232} {
				m, err := s.ask(t, question{c.name, c.kind, udp, tcp})
				if err != nil || said(m) != c.want {
					t.Errorf("%s %s (tcp %v): %s (%v), want %s", c.name, c.kind, tcp, said(m), err, c.want)
				}
				if len(m.Additionals) != min(int(udp), 1) {
					t.Errorf("%s: EDNS %d, answered with %v", c.name, udp, m.Additionals)
				}
			}
		}
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
	s.SetNames(nil)
	if m, err := s.ask(t, question{name: "web.vm.", kind: dnsmessage.TypeA}); err != nil || said(m) != "NameError" {
		t.Errorf("a name that went: %s (%v)", said(m), err)
	}
}

func TestPassedOn(t *testing.T) {
	large := strings.Fields(strings.Repeat("0123456789012345678901234567890123456789 ", 40))
	silent := func(dnsmessage.Message, bool) *dnsmessage.Message { return nil }
	truncating := func(q dnsmessage.Message, tcp bool) *dnsmessage.Message {
		if tcp {
			return reply(q, large...)
		}
		m := reply(q)
		m.Truncated = true
		return m
	}
	stranger := func(q dnsmessage.Message, _ bool) *dnsmessage.Message {
		m := reply(q, "forged")
		m.ID++
		return m
	}
	other := func(q dnsmessage.Message, _ bool) *dnsmessage.Message {
		q.Questions[0].Name = dnsmessage.MustNewName("other.example.")
		return reply(q, "forged")
	}
	type upstreams []func(dnsmessage.Message, bool) *dnsmessage.Message
	for _, c := range []struct {
		name string
		up   upstreams
		q    question
		want string
	}{
		{"one", upstreams{saying("yes")}, question{}, "Success yes"},
		{"by TCP", upstreams{saying("yes")}, question{tcp: true}, "Success yes"},
		{"no such name", upstreams{code(dnsmessage.RCodeNameError), saying("no")}, question{}, "NameError"},
		{"failure", upstreams{code(dnsmessage.RCodeServerFailure), saying("second")}, question{}, "Success second"},
		{"refusals", upstreams{code(dnsmessage.RCodeServerFailure), code(dnsmessage.RCodeRefused)}, question{}, "Refused"},
		{"silence", upstreams{silent, saying("second")}, question{}, "Success second"},
		{"forged number", upstreams{stranger, saying("second")}, question{}, "Success second"},
		{"forged question", upstreams{other, saying("second")}, question{}, "Success second"},
		{"nobody", upstreams{silent}, question{}, "ServerFailure"},
		{"truncated", upstreams{truncating}, question{udp: 4096}, "Success " + strings.Join(large, " ")},
		{"truncated for TCP", upstreams{truncating}, question{tcp: true}, "Success " + strings.Join(large, " ")},
		{"too large for the client", upstreams{truncating}, question{}, "Success truncated"},
		{"too large for its datagrams", upstreams{truncating}, question{udp: 1232}, "Success truncated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var at []string
			for _, f := range c.up {
				at = append(at, startUpstream(t, f).at.String())
			}
			s := start(t, "127.0.0.0/8", at...)
			c.q.name, c.q.kind = "name.example.", dnsmessage.TypeTXT
			if m, err := s.ask(t, c.q); err != nil || said(m) != c.want {
				t.Errorf("%s (%v), want %s", said(m), err, c.want)
			}
		})
	}
}

// TestDeadServerIsAskedLast holds that only the first query waits for it.
func TestDeadServerIsAskedLast(t *testing.T) {
	dead := startUpstream(t, func(dnsmessage.Message, bool) *dnsmessage.Message { return nil })
	s := start(t, "127.0.0.0/8", dead.at.String(), startUpstream(t, saying("yes")).at.String())
	for range 5 {
		if m, err := s.ask(t, question{name: "a.example.", kind: dnsmessage.TypeTXT}); err != nil || said(m) != "Success yes" {
			t.Fatalf("%s (%v)", said(m), err)
		}
	}
	if n := dead.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestResolvConfChanges(t *testing.T) {
	s := start(t, "127.0.0.0/8", "127.9.9.9", startUpstream(t, saying("one")).at.String())
	for _, want := range []string{"one", "two", "three"} {
		if want != "one" {
			s.resolvers(t, startUpstream(t, saying(want)).at.String())
		}
		if m, err := s.ask(t, question{name: "a.example.", kind: dnsmessage.TypeTXT}); err != nil || said(m) != "Success "+want {
			t.Errorf("%s (%v), want %s", said(m), err, want)
		}
	}
	s.resolvers(t, "127.9.9.9") // ourselves alone
	if m, err := s.ask(t, question{name: "a.example.", kind: dnsmessage.TypeTXT}); err != nil || said(m) != "ServerFailure" {
		t.Errorf("%s (%v)", said(m), err)
	}
}

// TestStrangersAreNotAnswered: no open resolver.
func TestStrangersAreNotAnswered(t *testing.T) {
	up := startUpstream(t, saying("outside"))
	s := start(t, "172.30.0.0/16", up.at.String())
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("web.vm."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, tcp := range []bool{false, true} {
		if m, err := s.send(t, b, tcp, 200*time.Millisecond); err == nil {
			t.Errorf("tcp %v: answered %s", tcp, said(m))
		}
	}
}

func TestNonsense(t *testing.T) {
	s := start(t, "127.0.0.0/8", startUpstream(t, saying("outside")).at.String())
	header := func(flags uint16, questions uint16) []byte {
		b := binary.BigEndian.AppendUint16(nil, 0x1234)
		b = binary.BigEndian.AppendUint16(b, flags)
		return append(binary.BigEndian.AppendUint16(b, questions), 0, 0, 0, 0, 0, 0)
	}
	for name, c := range map[string]struct {
		b    []byte
		want string // empty = no answer
	}{
		"empty":        {[]byte{}, ""},
		"short":        {[]byte{1, 2, 3}, ""},
		"an answer":    {header(0x8000, 0), ""},
		"no question":  {header(0, 0), "FormatError"},
		"question cut": {header(0, 1), "FormatError"},
		"an update":    {header(5<<11, 0), "NotImplemented"},
		"pointer loop": {append(header(0, 1), 0xc0, 12, 0, 1, 0, 1), "FormatError"},
	} {
		m, err := s.send(t, c.b, false, 200*time.Millisecond)
		if got := said(m); c.want == "" && err == nil || c.want != "" && (err != nil || got != c.want) {
			t.Errorf("%s: %s (%v), want %q", name, got, err, c.want)
		}
	}
}

// TestStopsWhileAsking holds that a query under way and an idle connection keep nothing alive.
func TestStopsWhileAsking(t *testing.T) {
	asked := make(chan struct{}, 10)
	s := startPatient(t, time.Minute, "127.0.0.0/8", startUpstream(t, func(dnsmessage.Message, bool) *dnsmessage.Message {
		asked <- struct{}{}
		return nil
	}).at.String())
	idle, err := net.Dial("tcp", s.at)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	go func() {
		m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.b."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		b, _ := m.Pack()
		c, err := net.Dial("udp", s.at)
		if err == nil {
			_, _ = c.Write(b)
			_ = c.Close()
		}
	}()
	<-asked
	began := time.Now()
	s.stop()
	if d := time.Since(began); d > time.Second {
		t.Errorf("stopping took %s", d)
	}
}

func TestSlots(t *testing.T) {
	s := newSlots(3, 2)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var got []bool
	for _, guest := range []netip.Addr{a, a, a, b, b} {
		got = append(got, s.take(guest))
	}
	if want := []bool{true, true, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s.give(a)
	if !s.take(b) {
		t.Error("a slot given back is not free")
	}
	s.give(a)
	if len(s.taken) != 1 {
		t.Errorf("still counted: %v", s.taken)
	}
}

func TestParseConf(t *testing.T) {
	for text, want := range map[string]string{
		"": "[127.0.0.1:53]",
		"nameserver\nnameserver x\n#nameserver 9.9.9.9\n":                   "[127.0.0.1:53]",
		"nameserver 127.0.0.53\nnameserver 10.0.0.1:5353 # home\n":          "[127.0.0.53:53 10.0.0.1:5353]",
		" nameserver\tfe80::1%eth0\nnameserver [fd00::2]:54\n":              "[[fe80::1%eth0]:53 [fd00::2]:54]",
		strings.Repeat("nameserver 10.0.0.1\n", 20) + "options timeout:1\n": fmt.Sprint(slices.Repeat([]string{"10.0.0.1:53"}, maxHosts)),
	} {
		if got := fmt.Sprint(parseConf(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// FuzzAnswer holds that no message from a guest ends the server, and that what it answers can be read.
func FuzzAnswer(f *testing.F) {
	s := New(Config{Subnet: netip.MustParsePrefix("10.0.0.0/8"), Hosts: filepath.Join(f.TempDir(), "absent"), Log: slog.New(slog.DiscardHandler)})
	s.SetNames(map[string]netip.Addr{"web": netip.MustParseAddr("10.0.0.2")})
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is passed on
	for _, name := range []string{"web.vm.", "2.0.0.10.in-addr.arpa.", "a.b."} {
		m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a := s.answer(ctx, b, len(b)%2 == 0); a != nil {
			var m dnsmessage.Message
			if err := m.Unpack(a); err != nil {
				t.Errorf("%x: answered %x: %v", b, a, err)
			}
		}
	})
}
