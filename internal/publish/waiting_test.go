package publish

import (
	"net"
	"testing"

	"banger/internal/vm"
)

// What many clients send to a guest that does not take it is bounded by bytes, and forgotten with the port.
func TestWaitingDatagrams(t *testing.T) {
	p := newPublisher(t)
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 9, Protocol: "udp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Hold(id, "web", r)(true)
	p.Apply(t.Context(), id, "web", p.Mark(), r.Ports(), true, nil) // nobody can be reached
	v := p.vms[id]
	big := make([]byte, 60_000)
	for range 4 * maxWaiting / len(big) / 16 {
		c, err := net.Dial("udp4", r.Ports()[0].Host())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for range 16 {
			_, _ = c.Write(big)
		}
	}
	settled(t, func() bool { // the kernel may drop some: more come until it is full
		c, err := net.Dial("udp4", r.Ports()[0].Host())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for range 16 {
			_, _ = c.Write(big)
		}
		return v.waiting.Load() > maxWaiting-int64(2*len(big))
	})
	if n := v.waiting.Load(); n > maxWaiting {
		t.Errorf("%d bytes wait", n)
	}
	p.Apply(t.Context(), id, "web", p.Mark(), nil, false, nil)
	settled(t, func() bool { return v.waiting.Load() == 0 })
}
