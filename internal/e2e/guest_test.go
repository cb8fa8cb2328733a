package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// A stop loses nothing, however much is dirty, and however little the processes are given.
func TestStopSettlesTheDisks(t *testing.T) {
	beside(t)
	b := newBox(t)
	const write = `yes banger | head -c 400000000`
	b.vm("dirty", "--memory", "2G")
	b.ok("vm", "exec", "dirty", "--", "sh", "-c", `
		cd /proc/sys/vm && echo 95 > dirty_ratio && echo 90 > dirty_background_ratio && echo 100000 > dirty_expire_centisecs
		`+write+` > /srv/big && echo small > /root/small
		setsid sh -c "trap '' TERM HUP; while :; do sleep 1; done" > /dev/null 2>&1 < /dev/null &`)
	begin := time.Now()
	b.ok("vm", "stop", "-t", "2", "dirty")
	t.Logf("stopped after %v", time.Since(begin).Round(time.Millisecond))
	if v := b.show("dirty"); v.State != vm.StateStopped || v.Runtime.LastError != "" {
		t.Errorf("%s, %q", v.State, v.Runtime.LastError)
	}
	b.ok("vm", "start", "dirty")
	b.ok("vm", "exec", "dirty", "--", "sh", "-c", write+` | cmp - /srv/big && grep -qx small /root/small`)
}

func TestInABareVM(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("bare", "--network", "none")
	in := func(args ...string) []string { return append([]string{"vm", "exec", "bare", "--"}, args...) }

	t.Run("the loopback is up", func(t *testing.T) {
		b := b.with(t)
		// Nobody listens there; without a way to it the kernel says that instead.
		b.fails(1, "Connection refused", in("bash", "-c", "< /dev/tcp/127.0.0.1/9")...)
		if got := b.ok(in("sh", "-c", "ls /sys/class/net; cat /sys/class/net/lo/flags")...); got != "lo\n0x9\n" {
			t.Errorf("%q, want lo alone, up", got)
		}
	})
	t.Run("devices", func(t *testing.T) { testDevices(t, b.with(t), "bare", "600") })
	t.Run("an ordinary user's streams", func(t *testing.T) {
		b := b.with(t)
		out, errs, code := b.run(nil, "vm", "exec", "-u", "nobody", "bare", "--", "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
		if out != "out\n" || errs != "err\n" || code != 0 {
			t.Errorf("stdout %q, stderr %q, exit code %d", out, errs, code)
		}
	})
	t.Run("cp to where a link leads", func(t *testing.T) {
		b := b.with(t)
		src := filepath.Join(t.TempDir(), "var") // /var/run is an absolute link to /run
		if err := os.MkdirAll(filepath.Join(src, "run", "app"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"run/top", "run/app/deep"} {
			if err := os.WriteFile(filepath.Join(src, name), []byte(name+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b.ok("vm", "cp", src, "bare:/")
		if got := b.ok(in("sh", "-c", "cat /run/top /run/app/deep; readlink /var/run")...); got != "run/top\nrun/app/deep\n/run\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("cp of a file's names", func(t *testing.T) {
		b := b.with(t)
		src := t.TempDir()
		for _, dir := range []string{"root", "srv"} { // the work disk and the system disk
			if err := os.Mkdir(filepath.Join(src, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		first := filepath.Join(src, "root/first")
		if err := os.WriteFile(first, []byte("content\n"), 0o750); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"root/second", "srv/third"} {
			if err := os.Link(first, filepath.Join(src, name)); err != nil {
				t.Fatal(err)
			}
		}
		b.ok("vm", "cp", src+"/.", "bare:/")
		if got := b.ok(in("sh", "-c", "stat -c '%h %a' /root/first /root/second /srv/third; cat /srv/third; find /srv /root -name '.banger*'")...); got !=
			"2 750\n2 750\n1 750\ncontent\n" {
			t.Errorf("%q", got)
		}
	})
}

// The nodes of modules that nobody has loaded yet are there, and opening one loads its module.
func TestDevicesWhereTheImagesInitIsPID1(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("sd", "--image", testhost.SystemdImage)
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		out, _, _ := b.run(nil, "vm", "exec", "sd", "--", "systemctl", "is-system-running", "--wait")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("systemd is %q", out)
		}
	}
	testDevices(t, b, "sd", "660") // udev's
}

// testDevices wants what ordinary programs open; loopControl is the mode of the node that only root does.
func testDevices(t *testing.T, b *box, name, loopControl string) {
	in := func(args ...string) []string { return append([]string{"vm", "exec", name, "--"}, args...) }
	if got := b.ok(in("stat", "-c", "%n %a %F", "/dev/fuse", "/dev/net/tun", "/dev/loop-control")...); got !=
		"/dev/fuse 666 character special file\n/dev/net/tun 666 character special file\n/dev/loop-control "+loopControl+" character special file\n" {
		t.Errorf("%q", got)
	}
	b.ok("vm", "exec", "-u", "nobody", name, "--", "bash", "-c", "exec 3<> /dev/fuse 4<> /dev/net/tun")
	if got := b.ok(in("sh", "-ec", `
		truncate -s 8M /srv/disk && mkfs.ext4 -q /srv/disk && mkdir -p /srv/mnt && mount -o loop /srv/disk /srv/mnt
		echo inside > /srv/mnt/x && umount /srv/mnt && mount -o loop,ro /srv/disk /srv/mnt && cat /srv/mnt/x && umount /srv/mnt`)...); got != "inside\n" {
		t.Errorf("%q", got)
	}
}
