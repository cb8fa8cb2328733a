package kernel

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

const cloudDep = `kernel/drivers/virtio/virtio_mmio.ko:
kernel/drivers/block/virtio_blk.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/net/vmw_vsock/vsock.ko:
kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko: kernel/net/vmw_vsock/vsock.ko
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko: kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko kernel/net/vmw_vsock/vsock.ko
kernel/drivers/char/hw_random/virtio-rng.ko:
`

const cloudBuiltin = "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/char/virtio_console.ko\n"

func loadOrders(t *testing.T, dep, builtin string) (order, vsock string, err error) {
	t.Helper()
	d, err := parseModulesDep(strings.NewReader(dep))
	if err != nil {
		t.Fatal(err)
	}
	var b map[string]bool
	if builtin != "none" {
		if b, err = parseBuiltin(strings.NewReader(builtin)); err != nil {
			t.Fatal(err)
		}
	}
	names := func(files []string) string {
		var n []string
		for _, f := range files {
			n = append(n, modName(f))
		}
		return strings.Join(n, " ")
	}
	disk, err := d.loadOrder(bootModules, b, nil)
	if err != nil {
		return "", "", err
	}
	extra, err := d.loadOrder(vsockModules, b, disk)
	return names(disk), names(extra), err
}

func TestLoadOrder(t *testing.T) {
	for name, c := range map[string]struct {
		dep, builtin string
		order, vsock string
		err          string
	}{
		"Debian's cloud kernel": {
			dep: cloudDep, builtin: cloudBuiltin,
			order: "virtio_mmio virtio_blk failover net_failover virtio_net",
			vsock: "vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport",
		},
		"everything a module": {
			dep: "a/virtio.ko: a/virtio_ring.ko\na/virtio_ring.ko:\na/virtio_mmio.ko: a/virtio.ko a/virtio_ring.ko\na/virtio-blk.ko:\n" +
				"a/ext4.ko: a/jbd2.ko a/crc16.ko\na/jbd2.ko:\na/crc16.ko:\na/crc32c_generic.ko:\n",
			order: "virtio_ring virtio virtio_mmio virtio_blk crc32c_generic crc16 jbd2 ext4",
		},
		"everything built in": {builtin: "virtio_mmio.ko\na/virtio-blk.ko\nb/ext4.ko\n"},
		"crc32c only with ext4": {
			dep: "a/crc32c_generic.ko:\n", builtin: "virtio_mmio.ko\nvirtio_blk.ko\next4.ko\n",
		},
		"no virtio_blk":              {dep: "a/virtio_mmio.ko:\n", builtin: cloudBuiltin, err: "no virtio_blk"},
		"no virtio_mmio":             {dep: "a/virtio_blk.ko:\n", builtin: cloudBuiltin, err: "no virtio_mmio"},
		"no ext4":                    {dep: "a/virtio_blk.ko:\na/virtio_mmio.ko:\n", err: "no ext4"},
		"no list of what's built in": {builtin: "none"},
		"a circle": {
			dep: "virtio_mmio.ko: virtio_blk.ko\nvirtio_blk.ko: virtio_mmio.ko\n", builtin: cloudBuiltin,
			order: "virtio_blk virtio_mmio",
		},
		"compressed": {
			dep: "a/virtio_mmio.ko.xz:\na/virtio_blk.ko.zst: a/x.ko.gz\na/x.ko.gz:\n", builtin: cloudBuiltin,
			order: "virtio_mmio x virtio_blk",
		},
	} {
		t.Run(name, func(t *testing.T) {
			order, vsock, err := loadOrders(t, c.dep, c.builtin)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || vm.CodeOf(err) != vm.CodeInvalid || vm.HintOf(err) == "" {
					t.Fatalf("got %v, want an invalid with a hint and %q", err, c.err)
				}
				return
			}
			if err != nil || order != c.order || vsock != c.vsock {
				t.Fatalf("got %q, %q, %v\nwant %q, %q", order, vsock, err, c.order, c.vsock)
			}
		})
	}
}

func TestParseModulesDepRefuses(t *testing.T) {
	for _, bad := range []string{"no colon\n", "/etc/passwd:\n", "../x.ko:\n", "a/x.ko: ../../y.ko\n", "a/x.txt:\n", "a//x.ko:\n", ":\n", "a/x.ko: " + strings.Repeat("y", 2<<20)} {
		if d, err := parseModulesDep(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q gave %v", bad, d)
		}
	}
}

func FuzzModulesDep(f *testing.F) {
	f.Add(cloudDep, cloudBuiltin)
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "")
	f.Fuzz(func(t *testing.T, dep, builtin string) {
		b, err := parseBuiltin(strings.NewReader(builtin))
		if err != nil {
			return
		}
		d, err := parseModulesDep(strings.NewReader(dep))
		if err != nil {
			return
		}
		var all []bootModule
		for name := range d.file {
			all = append(all, bootModule{name: name})
		}
		order, err := d.loadOrder(all, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(order)
		if len(slices.Compact(order)) != len(order) {
			t.Fatalf("a file twice in %q", order)
		}
		for _, file := range order {
			if strings.HasPrefix(file, "/") || strings.Contains("/"+file+"/", "/../") {
				t.Fatalf("%q leads out of the tree", file)
			}
		}
	})
}
