package agent

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"banger/internal/guest"
)

func TestParseCmdline(t *testing.T) {
	const minimal = "banger.root=serial:banger-root banger.channel=virtio:banger.agent"
	for _, c := range []struct {
		name, line string
		want       bootArgs
		err        string
	}{
		{"minimal", minimal, bootArgs{root: "serial:banger-root", channel: "virtio:banger.agent"}, ""},
		{"others ignored", "console=ttyS0 quiet " + minimal + " banger.later=1 -- x\n", bootArgs{root: "serial:banger-root", channel: "virtio:banger.agent"}, ""},
		{"everything", minimal + " banger.work=dev:vdb banger.modules=dev:vdc banger.init=/sbin/init",
			bootArgs{root: "serial:banger-root", work: "dev:vdb", modules: "dev:vdc", init: "/sbin/init", channel: "virtio:banger.agent"}, ""},
		{"agent is the default", minimal + " banger.init=agent", bootArgs{root: "serial:banger-root", channel: "virtio:banger.agent"}, ""},
		{"the last wins", "banger.root=dev:vda " + minimal, bootArgs{root: "serial:banger-root", channel: "virtio:banger.agent"}, ""},
		{"quoted", `banger.init="/my init" ` + minimal, bootArgs{root: "serial:banger-root", init: "/my init", channel: "virtio:banger.agent"}, ""},
		{"vsock", "banger.root=dev:vda banger.channel=vsock:1024", bootArgs{root: "dev:vda", channel: "vsock:1024"}, ""},
		{"proof needs nothing", "banger.prove=1", bootArgs{prove: true}, ""},
		{"no root", "banger.channel=vsock:1024", bootArgs{}, "banger.root is missing"},
		{"bad disk", "banger.root=/dev/vda banger.channel=vsock:1", bootArgs{}, "serial:NAME or dev:NAME"},
		{"disk with a path", "banger.root=dev:../sda banger.channel=vsock:1", bootArgs{}, "serial:NAME or dev:NAME"},
		{"bad work disk", minimal + " banger.work=x", bootArgs{}, "banger.work"},
		{"relative init", minimal + " banger.init=sbin/init", bootArgs{}, "absolute path"},
		{"no channel", "banger.root=dev:vda", bootArgs{}, "virtio:NAME or vsock:PORT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseCmdline(c.line)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add(`quiet banger.root=dev:vda banger.channel=vsock:1 x="a b" banger.init="`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, word := range splitCmdline(line) {
			if strings.Contains(word, `"`) {
				t.Errorf("a quote is left in %q", word)
			}
		}
		if a, err := parseCmdline(line); err == nil && !a.prove && (a.root == "" || strings.Contains(a.root, "/") || a.init != "" && a.init[0] != '/') {
			t.Errorf("accepted %+v", a)
		}
	})
}

func TestParseOrder(t *testing.T) {
	got, err := parseOrder("virtio_mmio.ko\n\n# comment\n  sub/virtio_blk.ko \n")
	if want := []string{"virtio_mmio.ko", "sub/virtio_blk.ko"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"../x.ko", "/x.ko", "a/../../x.ko", "a//b.ko", "."} {
		if got, err := parseOrder(bad); err == nil {
			t.Errorf("%q: accepted as %v", bad, got)
		}
	}
}

func FuzzParseOrder(f *testing.F) {
	f.Add("a.ko\n../b.ko\n")
	f.Fuzz(func(t *testing.T, list string) {
		names, err := parseOrder(list)
		if err != nil {
			return
		}
		for _, n := range names {
			if strings.HasPrefix(n, "/") || slices.Contains(strings.Split(n, "/"), "..") {
				t.Errorf("%q leaves the directory", n)
			}
		}
	})
}

const (
	passwdFile = `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
dev:x:1000:1000:Dev,,,:/home/dev:/bin/zsh
bare:x:1001:1001:::
broken:x:many:1:x:/:/bin/sh
short:x:7
+::::::
1000:x:2000:2000:a name of digits:/home/digits:/bin/sh
`
	groupFile = `root:x:0:
dev:x:1000:
docker:x:998:dev,other
sudo:x:27:other,dev
dup:x:27:dev
broken:x:z:dev
short:x
`
)

func TestFindAccount(t *testing.T) {
	dev := account{name: "dev", home: "/home/dev", shell: "/bin/zsh", uid: 1000, gid: 1000, groups: []uint32{998, 27}}
	for _, c := range []struct {
		user string
		want account
		err  string
	}{
		{"root", account{name: "root", home: "/root", shell: "/bin/bash"}, ""},
		{"0", account{name: "root", home: "/root", shell: "/bin/bash"}, ""},
		{"dev", dev, ""},
		{"1001", account{name: "bare", home: "/", shell: "/bin/sh", uid: 1001, gid: 1001}, ""},
		{"1000", account{name: "1000", home: "/home/digits", shell: "/bin/sh", uid: 2000, gid: 2000}, ""}, // a name goes first
		{"4242", account{name: "4242", home: "/", shell: "/bin/sh", uid: 4242}, ""},
		{"dev:docker", account{name: "dev", home: "/home/dev", shell: "/bin/zsh", uid: 1000, gid: 998}, ""},
		{"dev:5", account{name: "dev", home: "/home/dev", shell: "/bin/zsh", uid: 1000, gid: 5}, ""},
		{"4242:4243", account{name: "4242", home: "/", shell: "/bin/sh", uid: 4242, gid: 4243}, ""},
		{"nosuch", account{}, `no user "nosuch"`},
		{"broken", account{}, `no user "broken"`},
		{"dev:nosuch", account{}, `no group "nosuch"`},
		{"dev:", account{}, `no group ""`},
		{"-1", account{}, "no user"},
		{"4294967296", account{}, "no user"},
	} {
		got, err := findAccount(passwdFile, groupFile, c.user)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %+v, error %v, want one with %q", c.user, got, err, c.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, %v, want %+v", c.user, got, err, c.want)
		}
	}
	if got, err := findAccount("", "", "root"); err != nil || got.home != "/root" || got.uid != 0 {
		t.Errorf("root without /etc/passwd: %+v, %v", got, err)
	}
}

func FuzzFindAccount(f *testing.F) {
	f.Add(passwdFile, groupFile, "dev:docker")
	f.Fuzz(func(t *testing.T, passwd, group, user string) {
		if a, err := findAccount(passwd, group, user); err == nil && (a.home == "" || a.shell == "" || a.name == "") {
			t.Errorf("%q: incomplete %+v", user, a)
		}
	})
}

func TestEnvironment(t *testing.T) {
	who := account{name: "dev", home: "/home/dev", shell: "/bin/zsh"}
	got := environment(who, true, []string{"PATH=/opt/bin", "A=1", "B=2"}, []string{"B=3", "TERM=vt100", "nonsense", "=x", "N=a\x00b", "EMPTY="})
	want := []string{"PATH=/opt/bin", "HOME=/home/dev", "USER=dev", "LOGNAME=dev", "SHELL=/bin/zsh", "TERM=vt100", "A=1", "B=3", "EMPTY="}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := getenv(environment(who, false), "TERM"); got != "" {
		t.Errorf("TERM=%s without a terminal", got)
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]int{"SIGINT": 2, "INT": 2, "int": 2, "9": 9, "SIGWINCH": 28} {
		if got, err := parseSignal(name); err != nil || int(got) != want {
			t.Errorf("%q: %d, %v, want %d", name, got, err, want)
		}
	}
	for _, bad := range []string{"", "SIG", "0", "65", "-9", "SIGNOSUCH"} {
		if got, err := parseSignal(bad); err == nil {
			t.Errorf("%q: accepted as %d", bad, got)
		}
	}
}

func TestHostsFor(t *testing.T) {
	first := hostsFor("", "web")
	if want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tweb\n"; first != want {
		t.Errorf("a new file: %q", first)
	}
	if again := hostsFor(first, "web"); again != first {
		t.Errorf("twice: %q", again)
	}
	users := "127.0.0.1 localhost\n127.0.1.1 old\n10.0.0.9 db # the user's\n# end"
	if got, want := hostsFor(users, "web"), "127.0.0.1 localhost\n10.0.0.9 db # the user's\n# end\n127.0.1.1\tweb\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzHostsFor(f *testing.F) {
	f.Add("127.0.0.1 localhost\n127.0.1.1 old\n")
	f.Fuzz(func(t *testing.T, old string) {
		once := hostsFor(old, "web")
		if twice := hostsFor(once, "web"); twice != once {
			t.Errorf("%q: once %q, twice %q", old, once, twice)
		}
	})
}

func TestMachineIDFor(t *testing.T) {
	a, b := deriveMachineID("aaaaaaaaaaaa"), deriveMachineID("bbbbbbbbbbbb")
	if a == b || len(a) != 32 {
		t.Fatalf("derived %q and %q", a, b)
	}
	for _, c := range []struct{ name, old, previous, id, want string }{
		{"absent", "", "", "aaaaaaaaaaaa", a + "\n"},
		{"uninitialized", "uninitialized\n", "", "aaaaaaaaaaaa", a + "\n"},
		{"the image's own", "0123\n", "", "aaaaaaaaaaaa", "0123\n"},
		{"twice", a + "\n", "aaaaaaaaaaaa", "aaaaaaaaaaaa", a + "\n"},
		{"a fork", a + "\n", "aaaaaaaaaaaa", "bbbbbbbbbbbb", b + "\n"},
		{"a fork of an image's own", "0123\n", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "0123\n"},
	} {
		if got := machineIDFor(c.old, c.previous, c.id); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	good := guest.Network{MAC: "52:54:00:12:34:56", Address: "10.0.2.15/24", Gateway: "10.0.2.2", Nameservers: []string{"10.0.2.3"}}
	if _, err := parseNetwork(&good); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*guest.Network){
		"MAC":          func(n *guest.Network) { n.MAC = "52:54" },
		"no CIDR":      func(n *guest.Network) { n.Address = "10.0.2.15" },
		"gateway":      func(n *guest.Network) { n.Gateway = "gw" },
		"mixed family": func(n *guest.Network) { n.Gateway = "fe80::1" },
		"nameserver":   func(n *guest.Network) { n.Nameservers = []string{"10.0.2.3:53"} },
		"MTU":          func(n *guest.Network) { n.MTU = -1 },
	} {
		n := good
		spoil(&n)
		if _, err := parseNetwork(&n); err == nil {
			t.Errorf("%s: accepted %+v", name, n)
		}
	}
	if got, want := resolvFor(&guest.Network{Nameservers: []string{"10.0.2.3", "1.1.1.1"}, Search: []string{"vm", "local"}}), "search vm local\nnameserver 10.0.2.3\nnameserver 1.1.1.1\n"; got != want {
		t.Errorf("resolv.conf %q", got)
	}
}

func TestParseStats(t *testing.T) {
	var st guest.Stats
	parseMeminfo("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\nodd\n", &st)
	parseLoadavg("0.25 0.10 0.05 1/60 123\n", &st)
	parseStat("cpu  100 20 30 4000 5 6 7 0 0 0\ncpu0 1 1 1 1 1 1 1\n", &st)
	parseNetDev("Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth0:100 1 0 0 0 0 0 0  20 1 0 0 0 0 0 0\neth1: 1 1 0 0 0 0 0 0 2 1\nodd: 1\n", &st)
	parseDiskstats(" 254 0 vda 10 0 80 5 20 0 160 9 0 1 2\n 254 1 vda1 10 0 80 5 20 0 160 9 0 1 2\n 254 16 vdb 1 0 1 0 1 0 2 0 0 0 0\n 7 0 loop0 9 9 9 9 9 9 9 9\n254 0 vdc\n", &st)
	want := guest.Stats{Load1: 0.25, MemTotal: 1000 << 10, MemAvailable: 600 << 10, CPUUserMs: 1200, CPUSystemMs: 430,
		NetReceived: 101, NetSent: 22, DiskRead: 81 * 512, DiskWritten: 162 * 512}
	if st != want {
		t.Errorf("got %+v, want %+v", st, want)
	}
	real, err := readStats()
	if err != nil || real.MemTotal <= real.MemAvailable || real.Processes < 1 || real.UptimeMs < 1 {
		t.Errorf("this machine: %+v, %v", real, err)
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add("cpu  100 20 30 4000 5 6 7\nMemTotal: 1 kB")
	f.Fuzz(func(_ *testing.T, text string) {
		var st guest.Stats
		parseMeminfo(text, &st)
		parseLoadavg(text, &st)
		parseStat(text, &st)
		parseNetDev(text, &st)
		parseDiskstats(text, &st)
	})
}

func TestDiskMounts(t *testing.T) {
	got := diskMounts("/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/vdb /root ext4 rw 0 0\n/dev/loop0 /mnt/a\\040b\\134c ext4 rw 0 0\nshort\n")
	if want := []string{"/", "/root", `/mnt/a b\c`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTaskLimit(t *testing.T) {
	for _, c := range []struct {
		threads, pids int
		memory        uint64
		want          int
	}{
		{3600, 32768, 8 << 30, 2880},
		{3600, 1000, 8 << 30, 800},
		{3600, 32768, 256 << 20, 1024},
		{0, 0, 8 << 30, 64}, // unreadable
	} {
		if got := taskLimit(c.threads, c.pids, c.memory); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}
