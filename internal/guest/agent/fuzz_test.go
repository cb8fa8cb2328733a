package agent

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest"
)

// escape is what the kernel does to a path in /proc/self/mounts (mangle in fs/seq_file.c).
func escape(s string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
}

func FuzzDiskMounts(f *testing.F) {
	f.Add("/mnt/a\u00a0b", "")
	f.Add("/mnt/a b\\c\n", "/dev/vda / ext4 rw 0 0\n")
	f.Add(`/a\040`, "proc /proc proc rw 0 0\nshort\n")
	f.Fuzz(func(t *testing.T, target, others string) {
		if got := unescape(escape(target)); got != target {
			t.Errorf("%q came back as %q", target, got)
		}
		for _, m := range diskMounts(others) {
			if m == "" {
				t.Errorf("%q: an empty mount point", others)
			}
		}
		// Every path the kernel can name is found among others.
		if target == "" || strings.Contains(target, "\x00") {
			return
		}
		got := diskMounts(strings.TrimSuffix(others, "\n") + "\n/dev/vdb " + escape(target) + " ext4 rw 0 0\n")
		if len(got) == 0 || got[len(got)-1] != target {
			t.Errorf("%q is not the last of %q", target, got)
		}
	})
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("52:54:00:12:34:56", "10.0.2.15/24", "10.0.2.2", "10.0.2.3", "vm", 1500)
	f.Add("", "fd00::2/64", "fd00::1", "fe80::3%eth0", "a.b", 0)
	f.Add("", "fd00::2/64", "", "fe80::3%e\noptions x", "vm\noptions x", 0)
	f.Fuzz(func(t *testing.T, mac, address, gateway, nameserver, search string, mtu int) {
		n := guest.Network{MAC: mac, Address: address, Gateway: gateway, Nameservers: []string{nameserver}, Search: []string{search}, MTU: mtu}
		p, err := parseNetwork(&n)
		if err != nil {
			return
		}
		if !p.address.IsValid() || p.mac != nil && len(p.mac) != 6 || p.mtu != mtu || (gateway != "") != p.gateway.IsValid() {
			t.Errorf("%+v became %+v", n, p)
		}
		if p.gateway.IsValid() && p.gateway.Is4() != p.address.Addr().Is4() {
			t.Errorf("%+v: gateway and address of two families", n)
		}
		// What goes to resolv.conf is these two lines of two words and nothing else.
		text := resolvFor(&n)
		if f := strings.Fields(text); len(f) != 4 || f[0] != "search" || f[2] != "nameserver" || strings.Count(text, "\n") != 2 {
			t.Errorf("%+v: resolv.conf is %q", n, text)
		}
		_ = addressBody(2, p.address)
	})
}

// FuzzListen: whatever a client sends, the agent goes on, and knows how it left.
func FuzzListen(f *testing.F) {
	var b bytes.Buffer
	w := guest.NewFrameWriter(&b)
	for kind, p := range map[guest.FrameType]string{
		guest.FrameStdin: "hello", guest.FrameStdinClose: "", guest.FrameResize: "\x00\x01\x00\x02", guest.FrameSignal: "TERM",
	} {
		_ = w.Write(kind, []byte(p))
	}
	f.Add(b.Bytes())
	f.Add([]byte{byte(guest.FrameBye), 0, 0, 0, 0})
	f.Add([]byte{byte(guest.FrameResize), 0, 0, 0, 1, 7, byte(guest.FrameDetach), 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &Server{reaper: &reaper{}}
		j := &job{s: s, process: &process{s: s}, journal: newJournal(testBudget(1 << 20)), clients: map[*client]struct{}{}}
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Write(in)
			_ = theirs.Close()
		}()
		c := j.attach(ours, guest.AttachRequest{})
		if how := c.listen(); how != 0 && how != guest.FrameBye && how != guest.FrameDetach {
			t.Errorf("it left by frame %d", how)
		}
		_ = ours.Close()
	})
}

func FuzzParseAuthorized(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1cVN0y4tCk0sUj0aDhCrMS9Vw7Jj0dQX3bq0dXn3nN me@home")
	f.Add(`from="10.0.0.1" ssh-ed25519 AAAA`)
	f.Fuzz(func(t *testing.T, line string) {
		keys, err := parseAuthorized([]string{line})
		if err != nil {
			return
		}
		if len(keys) != 1 {
			t.Fatalf("%q: %d keys", line, len(keys))
		}
		// The key alone, as written by us, is the same key.
		again, err := parseAuthorized([]string{string(ssh.MarshalAuthorizedKey(keys[0]))})
		if err != nil || string(again[0].Marshal()) != string(keys[0].Marshal()) {
			t.Errorf("%q: written again it is %v, %v", line, again, err)
		}
	})
}
