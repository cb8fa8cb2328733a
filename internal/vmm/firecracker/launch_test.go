package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/host/kvm"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// Firecracker does not append to its files: an earlier run's content would be half overwritten, and its own words would
// stand before where they are looked for.
func TestFilesBeginWithEachLaunch(t *testing.T) {
	for name, uid := range map[string]int{"jailed": 47001, "free": 0} {
		t.Run(name, func(t *testing.T) {
			if uid != 0 {
				testhost.Need(t, testhost.Root)
			}
			testhost.Leaks(t)
			dir := testhost.Dir(t)
			c := machine(t, dir, uid)
			program, jailer := filepath.Join(dir, "firecracker"), filepath.Join(dir, "jailer")
			script := "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Firecracker v1.12.1' && exit\nexec 3<> " + c.Log + "; echo 'it has no luck' >&3; exit 3\n"
			err := errors.Join(os.WriteFile(program, []byte(script), 0o700),
				os.WriteFile(jailer, []byte(strings.Replace(script, "Firecracker", "Jailer", 1)), 0o700),
				os.WriteFile(c.Log, []byte(strings.Repeat("words of an earlier run\n", 9)), 0o600),
				os.WriteFile(c.Metrics, []byte("{}\n{}\n"), 0o600))
			for _, shared := range []string{c.Kernel, c.Initramfs, c.Modules.Path} {
				err = errors.Join(err, os.WriteFile(shared, nil, 0o644))
			}
			if err != nil {
				t.Fatal(err)
			}
			d := New(Config{StateDir: dir, NoJail: uid == 0, Host: hostWithKVM(t, dir), Locate: func() (string, string, error) { return program, jailer, nil }})
			for range 2 {
				how := ""
				if _, exited, err := d.Launch(t.Context(), c); err != nil { // it had ended before it was looked at
					how = err.Error()
				} else {
					how = <-exited
				}
				if !strings.HasSuffix(how, "exit status 3: it has no luck") {
					t.Errorf("it ended with %q", how)
				}
				if b, err := os.ReadFile(c.Log); string(b) != "it has no luck\n" {
					t.Errorf("its log is %q, %v", b, err)
				}
				if b, err := os.ReadFile(c.Metrics); len(b) != 0 || err != nil {
					t.Errorf("its metrics are %q, %v", b, err)
				}
			}
		})
	}
}

// hostWithKVM is one on which KVM looks usable.
func hostWithKVM(t *testing.T, dir string) kvm.Host {
	t.Helper()
	h := kvm.Host{Device: filepath.Join(dir, "kvm"), CPUInfo: filepath.Join(dir, "cpuinfo")}
	if err := errors.Join(os.WriteFile(h.Device, nil, 0o600), os.WriteFile(h.CPUInfo, []byte("flags\t: fpu svm\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return h
}

// KVM that has gone since the VM was made is an error in words, and no process is started for it.
func TestLaunchWithoutKVM(t *testing.T) {
	testhost.Leaks(t)
	dir := testhost.Dir(t)
	c := machine(t, dir, 0)
	program := filepath.Join(dir, "firecracker")
	script := "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Firecracker v1.12.1' && exit\ntouch " + filepath.Join(dir, "ran") + "\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := New(Config{StateDir: dir, NoJail: true, Host: hostWithKVM(t, dir), Locate: located(program)})
	if err := os.Remove(d.host.Device); err != nil {
		t.Fatal(err)
	}
	_, exited, err := d.Launch(t.Context(), c)
	if vm.CodeOf(err) != vm.CodeMissing || !strings.Contains(err.Error(), "there is no "+d.host.Device) || vm.HintOf(err) == "" {
		t.Errorf("launched: %v", err)
	}
	if exited != nil {
		<-exited
	}
	for _, name := range []string{"ran", configFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("there is %s", name)
		}
	}
}
