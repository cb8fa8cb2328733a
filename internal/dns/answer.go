package dns

import (
	"context"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	zone    = "vm." // the VMs' domain: NAME.vm
	reverse = ".in-addr.arpa."

	ttl = 5 // seconds: a name may be another VM's soon

	leastUDP = 512  // bytes of an answer that any client takes (RFC 1035)
	mostUDP  = 4096 // however much a client says that it takes
	ourUDP   = 1232 // what we say that we take: fits where fragments do not pass
)

const (
	typeIXFR = dnsmessage.Type(251)
	typeAXFR = dnsmessage.TypeAXFR
)

// query is a message that asks one thing.
type query struct {
	bytes    []byte
	header   dnsmessage.Header
	question dnsmessage.Question
	edns     bool
	most     int // bytes of an answer that the client takes
}

// parse reads a query. A code other than success is what to answer instead; ok is false when there is nobody to answer:
// an answer to an answer could go back and forth for ever.
func parse(b []byte, tcp bool) (q query, code dnsmessage.RCode, ok bool) {
	q = query{bytes: b, most: leastUDP}
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(b); err != nil || q.header.Response {
		return q, 0, false
	}
	if q.header.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return q, dnsmessage.RCodeFormatError, true
	}
	q.question = questions[0]
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			break // the end, or what we need not understand
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns = true
			q.most = min(max(int(h.Class), leastUDP), mostUDP)
		}
		if p.SkipAdditional() != nil {
			break
		}
	}
	if tcp {
		q.most = 1<<16 - 1
	}
	if q.question.Class != dnsmessage.ClassINET || q.question.Type == typeAXFR || q.question.Type == typeIXFR {
		return q, dnsmessage.RCodeRefused, true
	}
	return q, dnsmessage.RCodeSuccess, true
}

// answer returns what to say to the client; nil = nothing.
func (s *Server) answer(ctx context.Context, b []byte, tcp bool) []byte {
	q, code, ok := parse(b, tcp)
	if !ok {
		return nil
	}
	if code != dnsmessage.RCodeSuccess {
		return q.reply(code, nil)
	}
	if code, body, ok := s.ours(q.question); ok {
		return q.reply(code, body)
	}
	answer, err := s.upstream.ask(ctx, q)
	if err != nil {
		s.log.Debug("pass a DNS query on", "name", q.question.Name.String(), "error", err)
		return q.reply(dnsmessage.RCodeServerFailure, nil)
	}
	if len(answer) > q.most {
		return q.truncated()
	}
	return answer
}

// ours answers what is asked about VMs and the addresses of their network; ok is false for all else. A name that is
// there has no other records than those we know: success, and no body.
func (s *Server) ours(q dnsmessage.Question) (code dnsmessage.RCode, body dnsmessage.ResourceBody, ok bool) {
	name := strings.ToLower(q.Name.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if label, ok := strings.CutSuffix(name, "."+zone); ok {
		a, known := s.names[label]
		switch {
		case !known:
			return dnsmessage.RCodeNameError, nil, true
		case q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeALL:
			return dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: a.As4()}, true
		}
		return dnsmessage.RCodeSuccess, nil, true
	}
	if name == zone {
		return dnsmessage.RCodeSuccess, nil, true
	}
	a, ok := parseReverse(name)
	if !ok || !s.subnet.Contains(a) {
		return 0, nil, false
	}
	label, known := s.addrs[a]
	switch {
	case !known:
		return dnsmessage.RCodeNameError, nil, true
	case q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL:
		ptr, err := dnsmessage.NewName(label + "." + zone)
		if err != nil {
			return dnsmessage.RCodeServerFailure, nil, true
		}
		return dnsmessage.RCodeSuccess, &dnsmessage.PTRResource{PTR: ptr}, true
	}
	return dnsmessage.RCodeSuccess, nil, true
}

// parseReverse reads the address out of 4.3.2.1.in-addr.arpa.
func parseReverse(name string) (netip.Addr, bool) {
	labels, ok := strings.CutSuffix(name, reverse)
	parts := strings.Split(labels, ".")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return a, err == nil
}

// reply writes an answer of our own, with at most one record.
func (q query) reply(code dnsmessage.RCode, body dnsmessage.ResourceBody) []byte {
	return q.build(dnsmessage.Header{RCode: code, Authoritative: body != nil || code == dnsmessage.RCodeNameError}, body)
}

// truncated tells the client to ask again by TCP.
func (q query) truncated() []byte { return q.build(dnsmessage.Header{Truncated: true}, nil) }

func (q query) build(h dnsmessage.Header, body dnsmessage.ResourceBody) []byte {
	h.ID, h.Response, h.OpCode = q.header.ID, true, q.header.OpCode
	h.RecursionDesired, h.RecursionAvailable = q.header.RecursionDesired, true
	m := dnsmessage.Message{Header: h}
	if q.question.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.question}
	}
	if body != nil {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   body,
		}}
	}
	if q.edns { // a client that speaks EDNS must be answered in it (RFC 6891, 6.1.1)
		opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		if err := opt.Header.SetEDNS0(ourUDP, h.RCode, false); err != nil {
			return nil
		}
		m.Additionals = []dnsmessage.Resource{opt}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
