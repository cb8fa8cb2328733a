package qemu

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/vmm"
)

func example() vmm.Config {
	return vmm.Config{
		ID: "0123456789ab", Name: "web", VCPU: 2, MemoryMiB: 512, Kernel: "/k/vm,linux", Initramfs: "/k/initramfs",
		Args: []string{"quiet"}, Init: "/sbin/init",
		Root:    vmm.Disk{Path: "/v/ro\"ot,.qcow2", Format: "qcow2"},
		Work:    &vmm.Disk{Path: "/v/work.ext4", Format: "raw"},
		Modules: &vmm.Disk{Path: "/k/modules.ext4", Format: "raw", ReadOnly: true},
		NIC:     &vmm.NIC{User: true, MAC: "02:00:00:00:00:01"},
		APISock: "/r/a,b/qmp.sock", AgentSock: "/r/a,b/agent.sock", Console: "/v/con,sole.log", Log: "/v/vmm.log",
	}
}

func TestArguments(t *testing.T) {
	args, err := arguments(example(), machine{tscKHz: 2_445_424, sandbox: true, threads: true, places: true, agentFD: 3})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-name", "web", "-nodefaults", "-no-user-config", "-display", "none",
		"-qmp", "unix:/r/a,,b/qmp.sock,server=on,wait=off", "-no-reboot", "-smp", "2", "-m", "512M",
		"-kernel", "/k/vm,linux", "-initrd", "/k/initramfs",
		"-append", "console=ttyS0 panic=-1 reboot=t tsc_early_khz=2445424 tsc=reliable no_timer_check mitigations=off " +
			"banger.root=serial:banger-root banger.work=serial:banger-work banger.modules=serial:banger-modules " +
			"banger.init=/sbin/init banger.channel=virtio:banger.agent quiet",
		"-chardev", "file,id=console,append=on,path=/v/con,,sole.log", "-serial", "chardev:console",
		"-device", "virtio-serial-device", "-chardev", "socket,id=agent,fd=3,server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=banger.agent",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng",
		"-machine", "microvm", "-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-blockdev", `{"driver":"qcow2","node-name":"root","read-only":false,"discard":"unmap","detect-zeroes":"unmap",` +
			`"cache":{"direct":false,"no-flush":false},"file":{"driver":"file","filename":"/v/ro\"ot,.qcow2","read-only":false,"discard":"unmap","cache":{"direct":false,"no-flush":false}}}`,
		"-device", "virtio-blk-device,drive=root,serial=banger-root",
		"-blockdev", `{"driver":"raw","node-name":"work","read-only":false,"discard":"unmap","detect-zeroes":"unmap",` +
			`"cache":{"direct":false,"no-flush":false},"file":{"driver":"file","filename":"/v/work.ext4","read-only":false,"discard":"unmap","cache":{"direct":false,"no-flush":false}}}`,
		"-device", "virtio-blk-device,drive=work,serial=banger-work",
		"-blockdev", `{"driver":"raw","node-name":"modules","read-only":true,"discard":"unmap","detect-zeroes":"off",` +
			`"cache":{"direct":false,"no-flush":false},"file":{"driver":"file","filename":"/k/modules.ext4","read-only":true,"discard":"unmap","cache":{"direct":false,"no-flush":false}}}`,
		"-device", "virtio-blk-device,drive=modules,serial=banger-modules",
		"-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-device,netdev=net,mac=02:00:00:00:00:01",
	}
	if !slices.Equal(args, want) {
		for i := range max(len(args), len(want)) {
			if i >= len(args) || i >= len(want) || args[i] != want[i] {
				t.Fatalf("from argument %d on:\n got %q\nwant %q", i, args[min(i, len(args)):], want[min(i, len(want)):])
			}
		}
	}
}

func TestArgumentsUnderKVM(t *testing.T) {
	c := example()
	c.Init, c.Work, c.Modules, c.NIC = "", nil, nil, &vmm.NIC{Tap: "bt0"}
	args, err := arguments(c, machine{kvm: true, cpu: "host", tscKHz: 2_445_424})
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(args, "\n")
	for _, want := range []string{"-machine\nmicrovm,rtc=on\n", "-accel\nkvm", "-cpu\nhost", "reboot=t quiet ", "banger.init=agent ", "tap,id=net,ifname=bt0,script=no,downscript=no"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
	for _, not := range []string{"tsc", "mitigations", "no_timer_check", "norandmaps", "-sandbox", "banger.work", "banger.modules"} {
		if strings.Contains(line, not) {
			t.Errorf("%q in %s", not, line)
		}
	}
}

func TestArgumentsOfTheProcessor(t *testing.T) {
	for cpu, want := range map[string]string{"": "host", "host": "host", "host,-arch-capabilities": "host,-arch-capabilities"} {
		f := findings{KVM: kvmProven, KVMCPU: cpu} // none: of a daemon that knew but one
		args, err := arguments(example(), f.machine())
		if i := slices.Index(args, "-cpu"); err != nil || args[i+1] != want || args[i-1] != "kvm" {
			t.Errorf("found %q, launched with %q, %v", cpu, args, err)
		}
	}
	args, err := arguments(example(), findings{KVM: kvmDisproven, KVMCPU: "host"}.machine())
	if i := slices.Index(args, "-cpu"); err != nil || args[i+1] != "max,-erms,-fsrm" {
		t.Errorf("emulated, with %q, %v", args, err)
	}
}

// Emulated processors run at the same time only where QEMU can do that.
func TestArgumentsOfSeveralProcessors(t *testing.T) {
	for _, c := range []struct {
		version string
		vcpus   int
		want    string
	}{
		{"7.2.22", 1, "tcg,thread=multi"}, {"7.2.22", 2, "tcg,thread=single"}, {"8.0.5", 2, "tcg,thread=single"},
		{"8.1", 2, "tcg,thread=multi"}, {"10.0.2", 4, "tcg,thread=multi"}, {"", 2, "tcg,thread=single"},
	} {
		conf := example()
		conf.VCPU = c.vcpus
		args, err := arguments(conf, findings{Version: c.version}.machine())
		if i := slices.Index(args, "-accel"); err != nil || args[i+1] != c.want {
			t.Errorf("QEMU %s, %d processors: %q, %v; want %s", c.version, c.vcpus, args, err, c.want)
		}
	}
}

// An emulator that translates a program again at each place has guests load it at the same one.
func TestArgumentsOfPlaces(t *testing.T) {
	for version, want := range map[string]bool{"7.2.22": true, "8.0.5": true, "8.1.0": false, "10.0.2": false} {
		args, err := arguments(example(), findings{Version: version}.machine())
		if i := slices.Index(args, "-append"); err != nil || strings.Contains(args[i+1], " norandmaps ") != want {
			t.Errorf("QEMU %s: %q, %v; want it fixed: %v", version, args, err, want)
		}
	}
}

// QEMU's driver for files refuses a block device, and that for devices a file.
func TestBlockDevice(t *testing.T) {
	for _, c := range []struct {
		d    vmm.Disk
		want string
	}{
		{vmm.Disk{Path: "/dev/mapper/x,y", Format: "raw", Block: true},
			`"driver":"raw","node-name":"root","read-only":false,"discard":"unmap","detect-zeroes":"unmap","cache":{"direct":false,"no-flush":false},` +
				`"file":{"driver":"host_device","filename":"/dev/mapper/x,y","read-only":false,"discard":"unmap","cache":{"direct":false,"no-flush":false}}`},
		{vmm.Disk{Path: "/dev/loop0", Format: "qcow2", Block: true, ReadOnly: true}, `"file":{"driver":"host_device","filename":"/dev/loop0","read-only":true`},
		{vmm.Disk{Path: "/dev/loop0", Format: "raw"}, `"file":{"driver":"file","filename":"/dev/loop0"`},
	} {
		got, err := blockdevJSON(drive{c.d, "root", "banger-root"})
		if err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%+v gives %s, %v; want %s", c.d, got, err, c.want)
		}
	}
}

func TestArgumentsRefuse(t *testing.T) {
	for name, change := range map[string]func(*vmm.Config){
		"format":            func(c *vmm.Config) { c.Root.Format = "vmdk" },
		"relative disk":     func(c *vmm.Config) { c.Work.Path = "work.ext4" },
		"space in argument": func(c *vmm.Config) { c.Args = []string{"a b"} },
		"space in init":     func(c *vmm.Config) { c.Init = "/sbin/my init" },
		"quote":             func(c *vmm.Config) { c.Args = []string{`a="b"`} },
		"empty argument":    func(c *vmm.Config) { c.Args = []string{""} },
		"long line":         func(c *vmm.Config) { c.Args = []string{strings.Repeat("x", 1700)} },
		"no network":        func(c *vmm.Config) { c.NIC = &vmm.NIC{} },
		"two networks":      func(c *vmm.Config) { c.NIC = &vmm.NIC{User: true, Tap: "bt0"} },
	} {
		c := example()
		change(&c)
		if _, err := arguments(c, machine{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestServes(t *testing.T) {
	c := example()
	args, err := arguments(c, machine{})
	if err != nil {
		t.Fatal(err)
	}
	if !serves(append([]string{"/usr/bin/qemu-system-x86_64"}, args...), c.APISock) {
		t.Error("does not know its own process")
	}
	qmp := []string{"-qmp", "unix:/r/x.sock,server=on,wait=off"}
	for name, other := range map[string][]string{
		"nothing":            {},
		"another program":    append([]string{"/usr/bin/grep"}, qmp...),
		"a shell with it":    {"sh", "-c", "qemu-system-x86_64 -qmp unix:/r/x.sock,server=on,wait=off"},
		"a longer path":      {"qemu-system-x86_64", "-qmp", "unix:/r/x.sock2,server=on,wait=off"},
		"the path elsewhere": {"qemu-system-x86_64", "-name", "unix:/r/x.sock,server=on,wait=off"},
		"cut off":            {"qemu-system-x86_64", "-qmp"},
	} {
		if serves(other, "/r/x.sock") {
			t.Errorf("%s is taken for it", name)
		}
	}
	if !serves(append([]string{"qemu-system-x86_64"}, qmp...), "/r/x.sock") {
		t.Error("does not know the simple case")
	}
}
