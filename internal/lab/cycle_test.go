package lab

import (
	"flag"
	"fmt"
	"strings"
	"testing"
)

var cycles = flag.Int("cycles", 20, "how often the cycles test starts a VM and ends it: each way to end one takes its turn, five seconds each")

// snapshot is what a VM could leave on a host, as its tools show it: held, and mounts, namespaces, sockets, and every
// file of the product's directories but those that a running daemon writes and the root's ssh key, which is made once.
const snapshot = held + `
findmnt -rno TARGET,FSTYPE | sort; ip netns list; ip -br addr; ls -R /run/banger
find /var/lib/banger /sys/fs/cgroup/*/banger-* ! -path '/var/lib/banger/ssh*' ! -name 'banger.db*' ! -name 'bangerd.*' 2>/dev/null | sort`

// withProduct gives a scene the product, Firecracker in it, and whatever the first VM of a host makes once and for all.
func (l *Lab) withProduct(t *testing.T) *scene {
	t.Helper()
	if err := l.Equip(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &scene{Lab: l, t: t}
	if !strings.Contains(s.quiet("banger vmm list"), "firecracker") {
		s.quiet("banger vmm install -q firecracker --from " + FirecrackerDir)
	}
	s.quiet("banger vm create -q --name before --vmm firecracker && banger vm delete -q before")
	return s
}

// testCycles starts a Firecracker VM and kills it, again and again: every start has to succeed, and afterwards the host is
// as it was. The end changes from one cycle to the next: by command, by a death of the VMM, of the daemon, and of both.
func (l *Lab) testCycles(t *testing.T) {
	s := l.withProduct(t)
	before := s.quiet(snapshot)
	const (
		vmm    = `$(banger vm show --json cycle | grep -oE '"pid": [0-9]+' | grep -oE '[0-9]+')`
		daemon = `$(cat /var/lib/banger/bangerd.lock)`
	)
	ends := []string{
		"banger vm kill -q cycle",
		"kill -9 " + vmm,
		"kill -9 " + daemon + "; banger vm kill -q cycle",
		"v=" + vmm + "; kill -9 " + daemon + " $v",
		"banger vm stop -q cycle",
	}
	for i := range *cycles {
		first := "banger vm start -q cycle"
		if i == 0 {
			first = "banger vm run -q -d --name cycle --vmm firecracker"
		}
		s.quiet(first)
		s.quiet("banger vm exec cycle -- true")
		end := ends[i%len(ends)]
		s.quiet(end)
		// Whoever ended it, the next command finds it stopped: at once, or when the worker has seen to it.
		s.quiet(`for i in $(seq 100); do case $(banger vm list | awk '$1 == "cycle" { print $2 }') in stopped) exit 0;; esac; sleep 0.1; done; exit 1`)
		if got := s.quiet(held); strings.Contains(got, "firecracker") || strings.Contains(got, "/dev/loop") {
			t.Errorf("cycle %d, after %s:\n%s", i, end, got)
		}
	}
	s.quiet("banger vm delete -q cycle")
	if after := s.quiet(snapshot); after != before {
		t.Errorf("after %d cycles the lab is not as it was before:\n%s", *cycles, lineDiff(before, after))
	}
	s.quiet("banger daemon stop")
	t.Logf("%d cycles", *cycles)
}

// testWithoutUdev has a Firecracker VM on device-mapper on a host where no udev runs, as in containers: nobody makes links
// to its devices, and nobody answers for one that was made or removed.
func (l *Lab) testWithoutUdev(t *testing.T) {
	s := l.withProduct(t)
	const units = "systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service"
	before := s.quiet(snapshot)
	s.quiet("systemctl stop " + units + "; ! pgrep -x systemd-udevd")
	defer s.quiet("systemctl start " + units)
	s.quiet("banger vm run -q -d --name plain --vmm firecracker --disk dmsnap && banger vm exec plain -- true")
	if dm := s.quiet("dmsetup ls"); !strings.Contains(dm, "banger-") {
		t.Errorf("the VM is not on device-mapper: %s", dm)
	}
	s.quiet("banger vm restart -q plain && banger vm exec plain -- true && banger vm delete -q plain")
	s.quiet("! banger doctor --leaks | grep ORPHAN")
	if after := s.quiet(snapshot); after != before {
		t.Errorf("the lab is not as it was before:\n%s", lineDiff(before, after))
	}
	s.quiet("banger daemon stop")
}

// lineDiff lists the lines that only one of two texts has.
func lineDiff(before, after string) string {
	count := map[string]int{}
	for l := range strings.Lines(before) {
		count[strings.TrimSpace(l)]--
	}
	for l := range strings.Lines(after) {
		count[strings.TrimSpace(l)]++
	}
	var b strings.Builder
	for l, n := range count {
		if n != 0 {
			fmt.Fprintf(&b, "%+d %s\n", n, l)
		}
	}
	return b.String()
}
