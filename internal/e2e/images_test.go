package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// image is one of the box's.
func (b *box) image(name string) api.ImageView {
	b.t.Helper()
	var v api.ImageView
	b.json(&v, "image", "show", "--json", name)
	return v
}

// inside is what debugfs says of the root disk of an image; its version goes to stderr.
func (b *box) inside(image, request string) string {
	b.t.Helper()
	out, err := exec.Command("debugfs", "-R", request, b.image(image).Path).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}

// smallTar is a root file system of a shell and what that needs, taken out of the default image, packed as docker export's.
func (b *box) smallTar() string {
	b.t.Helper()
	dir := b.t.TempDir()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			b.t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			b.t.Fatal(err)
		}
	}
	add(tar.Header{Name: ".dockerenv", Mode: 0o755}, nil)
	for _, d := range []string{"bin/", "etc/", "lib64/", "lib/", "lib/x86_64-linux-gnu/", "tmp/"} {
		add(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "etc/mark", Mode: 0o644}, []byte("imported\n"))
	add(tar.Header{Name: "etc/owned", Mode: 0o4750, Uid: 1234, Gid: 70000}, []byte("x"))
	for from, to := range map[string]string{"/usr/bin/dash": "bin/sh", "/usr/bin/cat": "bin/cat", "/usr/lib/x86_64-linux-gnu/libc.so.6": "lib/x86_64-linux-gnu/libc.so.6",
		"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": "lib64/ld-linux-x86-64.so.2"} {
		file := filepath.Join(dir, filepath.Base(from))
		b.inside(vm.DefaultImage, "dump "+from+" "+file)
		content, err := os.ReadFile(file)
		if err != nil {
			b.t.Fatal(err)
		}
		add(tar.Header{Name: to, Mode: 0o755}, content)
	}
	path := filepath.Join(dir, "small.tar")
	if err := w.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// TestImagesByHand takes one root file system through all hands: it is imported, changed in VMs with two kinds of disks, committed,
// exported as a qcow2 disk and imported again, tagged and pruned.
func TestImagesByHand(t *testing.T) {
	beside(t)
	b := newBox(t)
	small := b.smallTar()
	b.fails(125, "of no kind that is known", "image", "import", "/etc/hostname")
	b.fails(125, "cut off", "image", "import", cut(t, small))
	if got := b.ok("image", "import", "-q", small); got != "small\n" {
		t.Errorf("import printed %q", got)
	}
	b.fails(125, "an image named small exists", "image", "import", small)
	b.piped(small)
	b.ok("image", "tag", "small", "second")
	if v := b.image("second"); !slices.Equal(v.Names, []string{"second", "small"}) || len(v.VMs) > 0 || v.Source != "tar small.tar" {
		t.Errorf("%+v", v)
	}
	if got := b.inside("small", "stat /.dockerenv"); strings.Contains(got, "Inode:") {
		t.Errorf("the image says that it is Docker's: %s", got)
	}
	if got := b.inside("small", "stat /etc/owned"); !strings.Contains(got, "04750") || !strings.Contains(got, "User:  1234   Group: 70000") {
		t.Errorf("owner and mode: %s", got)
	}

	change := "cat /etc/mark; echo $0 >/etc/mark; echo work >/root/mark; read id </etc/machine-id; echo $id"
	ids := map[string]bool{}
	for name, disk := range map[string]string{"auto": "auto", "copied": "copy"} {
		b.vm(name, "--image", "small", "--disk", disk)
		b.show(name) // it fails where the VM has other drivers than it has to
		got := strings.Fields(b.ok("vm", "exec", name, "--", "sh", "-c", change, name))
		if len(got) != 2 || got[0] != "imported" || ids[got[1]] {
			t.Errorf("%s: %q, before %v", name, got, ids)
		}
		ids[got[1]] = true
		b.fails(125, "it is running, and its system disk in use", "vm", "commit", name, name)
		b.ok("vm", "stop", name)
		if got := b.ok("vm", "commit", "-q", name, name); got != name+"\n" {
			t.Errorf("commit printed %q", got)
		}
		if got := b.inside(name, "cat /etc/mark"); got != name+"\n" {
			t.Errorf("%s: the image holds %q", name, got)
		}
		if v := b.image(name); len(v.VMs) > 0 || v.Source != "VM "+name+" of small" {
			t.Errorf("%+v", v)
		}
	}
	if v := b.image("second"); !slices.Equal(v.VMs, []string{"auto", "copied"}) && !slices.Equal(v.VMs, []string{"copied", "auto"}) {
		t.Errorf("VMs on small: %q", v.VMs)
	}
	qcow2 := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("qemu-img", "convert", "-O", "qcow2", "-c", b.image("auto").Path, qcow2).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, disk := range map[string]string{"packed": qcow2, "plain": b.image("auto").Path} { // the second is the ext4 itself
		b.ok("image", "import", "-q", "--name", name, disk)
		// One more machine: with the changes, another identity, and nothing of the work disk.
		got := strings.Fields(b.ok("vm", "run", "--rm", "-q", "--image", name, "--", "sh", "-c", "cat /etc/mark; read id </etc/machine-id; echo $id; cat /root/* 2>/dev/null || echo none"))
		if len(got) != 3 || got[0] != "auto" || ids[got[1]] || got[2] != "none" {
			t.Errorf("a VM of %s: %q, the others are %v", name, got, ids)
		} else {
			ids[got[1]] = true
		}
	}

	b.ok("vm", "delete", "copied")
	_, plan, code := b.run(nil, "image", "prune")
	if code != 125 || !strings.Contains(plan, "delete image copied (") || strings.Contains(plan, "image small") || strings.Contains(plan, "image second") {
		t.Errorf("plan, exit code %d: %s", code, plan)
	}
	b.ok("image", "prune", "--yes")
	var left []vm.Image
	if err := json.Unmarshal([]byte(b.ok("image", "list", "--json")), &left); err != nil || len(left) != 2 || left[0].Name != "second" || left[1].Name != "small" {
		t.Errorf("left %+v, %v", left, err)
	}
	if entries, err := os.ReadDir(filepath.Join(b.root, "images")); err != nil || len(entries) != 1 {
		t.Errorf("files that are left: %v, %v", entries, err)
	}
}

// TestBuildWithAScript runs a script in a VM of the default image, which is there: no packages are fetched.
func TestBuildWithAScript(t *testing.T) {
	beside(t)
	b := newBox(t)
	script := filepath.Join(t.TempDir(), "provision")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("#!/bin/bash\nset -e\necho from the script\nid -u >/etc/by\necho work >/root/work\nfalse\n")
	before := b.ok("image", "list", "--json") // nothing of a failure is left
	if _, errs, code := b.run(nil, "image", "build", "--name", "scripted", "--script", script); code != 125 || !strings.Contains(errs, "the script ended with exit status 1: from the script") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if after := b.ok("image", "list", "--json"); after != before || b.ok("vm", "list", "-q") != "" {
		t.Errorf("images %q, before %q", after, before)
	}
	write("echo from the script\nexec sleep 1000\n")
	cmd := b.command("image", "build", "--name", "scripted", "--script", script)
	var seen lockedBuffer
	cmd.Stderr = &seen
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen.until(t, "from the script")
	_ = cmd.Process.Signal(unix.SIGINT)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("interrupted: %v, %s", err, seen.String())
	}
	if left := b.ok("vm", "list"); strings.Count(left, "\n") > 1 { // the heading
		t.Errorf("the interrupted build left %s", left)
	}
	write("#!/bin/bash\nset -e\necho from the script\nid -u >/etc/by\necho work >/root/work\n")
	out, errs, code := b.run(nil, "image", "build", "--name", "scripted", "--script", script)
	if out != "scripted\n" || code != 0 || !strings.Contains(errs, "from the script") {
		t.Errorf("exit code %d: %q, %s", code, out, errs)
	}
	if got := b.inside("scripted", "cat /etc/by"); got != "0\n" {
		t.Errorf("it holds %q", got)
	}
	for _, gone := range []string{"/root/work", "/root/.provision"} {
		if got := b.inside("scripted", "stat "+gone); strings.Contains(got, "Inode:") {
			t.Errorf("%s is in the image: %s", gone, got)
		}
	}
	if got := b.ok("vm", "list", "-q"); got != "" {
		t.Errorf("VMs are left: %q", got)
	}
	if again := b.ok("image", "build", "-q", "--name", "scripted", "--script", script); again != "scripted\n" { // at once: it is there
		t.Errorf("again: %q", again)
	}
}

// TestBuildWithAScriptThatFillsTheHost: QEMU halts the guest that writes more than the host's disk takes, and the build ends.
func TestBuildWithAScriptThatFillsTheHost(t *testing.T) {
	beside(t)
	testhost.Need(t, testhost.Root)
	b := newBox(t)
	vms := filepath.Join(b.root, "vms")
	if err := errors.Join(os.MkdirAll(vms, 0o700), unix.Mount("tmpfs", vms, "tmpfs", 0, "size=300m,mode=700")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.ok("daemon", "stop")
		if err := unix.Unmount(vms, 0); err != nil {
			t.Error(err)
		}
	})
	for name, text := range map[string]string{
		"while it writes":          "dd if=/dev/urandom of=/large bs=1M count=2000 conv=fsync\n",
		"when it has been written": "dd if=/dev/urandom of=/large bs=1M count=400\n", // less than the guest's memory takes
	} {
		script := filepath.Join(t.TempDir(), "provision")
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		before := b.ok("image", "list", "--json")
		_, errs, code := b.run(nil, "image", "build", "--name", "large", "--script", script)
		if code != 125 || !strings.Contains(errs, "build image large: no space is left on the file system of "+vms) || !strings.Contains(errs, "build it again") {
			t.Errorf("%s: exit code %d: %s", name, code, errs)
		}
		t.Logf("%s: it ended after %v", name, time.Since(began))
		if after := b.ok("image", "list", "--json"); after != before || b.ok("vm", "list", "-q") != "" {
			t.Errorf("%s: images %q, before %q", name, after, before)
		}
		if left, err := os.ReadDir(vms); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

// piped imports a tar from a pipe and from a file that is standard input: both are the image that it is by name.
func (b *box) piped(tar string) {
	b.t.Helper()
	f, err := os.Open(tar)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	for name, in := range map[string]io.Reader{"piped": io.MultiReader(f), "file": f} { // os/exec makes a pipe for what is no file
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.t.Fatal(err)
		}
		out, errs, code := b.run(in, "image", "import", "-q", "--name", name, "-")
		if v := b.image(name); out != name+"\n" || code != 0 || v.Source != "tar standard input" || !slices.Contains(v.Names, "small") {
			b.t.Errorf("import of a %s: %q, exit code %d, %+v\n%s", name, out, code, v, errs)
		}
		b.ok("image", "delete", name)
	}
	if _, errs, code := b.run(strings.NewReader("nothing"), "image", "import", "--name", "piped", "-"); code != 125 || !strings.Contains(errs, "from standard input: it is") {
		b.t.Errorf("import of nothing: exit code %d, %s", code, errs)
	}
}

// cut is the beginning of a file.
func cut(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	return short
}
