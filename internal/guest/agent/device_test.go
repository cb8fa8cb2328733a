package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/host/ext4"
	"banger/internal/testhost"
)

// sysTree makes files below a fresh directory.
func sysTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindDisk(t *testing.T) {
	block := sysTree(t, map[string]string{"loop0/size": "0\n", "vda/serial": "banger-root", "vdb/serial": "banger-work\n"})
	for want, name := range map[string]string{"serial:banger-root": "vda", "serial:banger-work": "vdb", "dev:vdb": "vdb", "serial:banger": "", "dev:vdc": ""} {
		if got, ok := findDisk(block, want); ok != (name != "") || ok && got != name {
			t.Errorf("%s: %q, %v", want, got, ok)
		}
	}
}

// A node is there before its disk is: to open it fails as it does to open a socket, until the disk is.
func TestADiskIsThereWhenItOpens(t *testing.T) {
	block, dev := sysTree(t, map[string]string{"vda/serial": "banger-root"}), testhost.Dir(t)
	node := filepath.Join(dev, "vda")
	look := func(what string, want bool) {
		t.Helper()
		if got, ready, err := diskNode(block, dev, "serial:banger-root"); got != node || ready != want || err != nil {
			t.Errorf("%s: %q, %v, %v", what, got, ready, err)
		}
	}
	look("no node", false)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: node}); err != nil {
		t.Fatal(err)
	}
	look("a node that leads nowhere", false)
	if err := errors.Join(os.Remove(node), os.WriteFile(node, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	look("a node with a disk", true)
	if got, ready, err := diskNode(block, dev, "serial:banger-work"); got != "" || ready || err != nil {
		t.Errorf("no such disk: %q, %v, %v", got, ready, err)
	}
}

func TestFindPort(t *testing.T) {
	class := sysTree(t, map[string]string{"vport0p0/dev": "1:1", "vport1p1/name": "banger.agent\n"})
	if got, ok := findPort(class, "banger.agent"); !ok || got != "vport1p1" {
		t.Errorf("got %q, %v", got, ok)
	}
	if got, ok := findPort(class, "banger"); ok {
		t.Errorf("part of a name found %q", got)
	}
}

func TestPickInterface(t *testing.T) {
	class := sysTree(t, map[string]string{
		"lo/address": "00:00:00:00:00:00\n", "br0/address": "52:54:00:00:00:02\n",
		"eth0/address": "52:54:00:00:00:01\n", "eth0/device/x": "", "eth1/address": "52:54:00:00:00:02\n", "eth1/device/x": "",
	})
	for mac, want := range map[string]string{"52:54:00:00:00:02": "eth1", "52:54:00:00:00:09": "eth0", "": "eth0"} {
		hw, _ := net.ParseMAC(mac)
		if got := pickInterface(class, hw); got != want {
			t.Errorf("%q: got %q, want %q", mac, got, want)
		}
	}
}

// The superblock of a real file system.
func TestParseSuper(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	mkfs, err := ext4.Program()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fs")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-F", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, size, err := parseSuper(b[1024:2048])
	if err != nil || blocks*size != 16<<20 {
		t.Errorf("%d blocks of %d bytes, %v", blocks, size, err)
	}
}

func FuzzParseSuper(f *testing.F) {
	b := make([]byte, 1024)
	binary.LittleEndian.PutUint16(b[0x38:], 0xEF53)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, size, err := parseSuper(b); err == nil && (size < 1024 || size > 64<<10) {
			t.Errorf("block size %d", size)
		}
	})
}

func FuzzParseNetlink(f *testing.F) {
	ack := binary.NativeEndian.AppendUint32(nil, 20)
	ack = binary.NativeEndian.AppendUint16(ack, unix.NLMSG_ERROR)
	ack = append(ack, 0, 0)
	ack = binary.NativeEndian.AppendUint32(ack, 7)
	f.Add(append(ack, make([]byte, 8)...), uint32(7))
	f.Add(addressBody(2, netip.MustParsePrefix("10.0.2.15/24")), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, seq uint32) {
		_, _ = parseNetlink(b, seq, func(body []byte) error {
			attributes(body, func(_ uint16, data []byte) { _ = bytes.Clone(data) })
			return nil
		})
	})
}

// What we send reads back as we mean it.
func TestAttributes(t *testing.T) {
	body := addressBody(2, netip.MustParsePrefix("10.0.2.15/24"))
	if body[0] != unix.AF_INET || body[1] != 24 || binary.NativeEndian.Uint32(body[4:]) != 2 {
		t.Errorf("header %v", body[:8])
	}
	seen := 0
	attributes(body[unix.SizeofIfAddrmsg:], func(kind uint16, data []byte) {
		seen++
		if kind != unix.IFA_LOCAL && kind != unix.IFA_ADDRESS || !bytes.Equal(data, []byte{10, 0, 2, 15}) {
			t.Errorf("attribute %d is %v", kind, data)
		}
	})
	if seen != 2 || len(body)%4 != 0 {
		t.Errorf("%d attributes in %d bytes", seen, len(body))
	}
}
