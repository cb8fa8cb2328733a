package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/api"
	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// person is an ordinary user of this host with the built programs, and no BANGER_ROOT.
type person struct {
	t testing.TB
	*testhost.User
}

func newPerson(t testing.TB, ids bool) *person {
	t.Helper()
	testhost.Need(t, testhost.Real, testhost.Root, testhost.QEMU)
	testhost.Leaks(t)
	p := &person{t, testhost.NewUser(t, ids)}
	for _, name := range []string{"banger", "bangerd"} {
		b, err := os.ReadFile(filepath.Join(testhost.Repo(t), "bin", name))
		if err != nil {
			t.Fatalf("%v: make build first", err)
		}
		if err := os.WriteFile(filepath.Join(p.Bin, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if ps, err := proc.Find(func(args []string) bool { return strings.Contains(strings.Join(args, " "), p.Home+"/") }); err != nil || len(ps) > 0 {
			t.Errorf("processes of the user are left: %v %v", ps, err)
		}
	})
	t.Cleanup(func() {
		_, _, _ = p.run(nil, "banger", "vm", "delete", "--all", "--yes")
		_, _, _ = p.run(nil, "banger", "daemon", "stop")
	})
	return p
}

func (p *person) with(t *testing.T) *person { return &person{t, p.User} }

func (p *person) run(env []string, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := p.Command(ctx, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		p.t.Errorf("%v: %v, %v\n%s", args, err, ctx.Err(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (p *person) ok(args ...string) string {
	p.t.Helper()
	out, errs, code := p.run(nil, args...)
	if code != 0 {
		p.t.Fatalf("%v: exit code %d\n%s%s", args, code, out, errs)
	}
	return out
}

// fails wants an error of banger's own with these words, and a hint with those.
func (p *person) fails(words, hint string, args ...string) {
	p.t.Helper()
	out, errs, code := p.run(nil, args...)
	said, hinted, _ := strings.Cut(errs, "  hint: ")
	if code != 125 || !strings.Contains(said, words) || !strings.Contains(hinted, hint) {
		p.t.Errorf("%v: exit code %d\n%s%s\nwant %q, with the hint %q", args, code, out, errs, words, hint)
	}
}

func (p *person) doctor() map[string]api.Problem {
	p.t.Helper()
	var list []api.Problem
	if err := json.Unmarshal([]byte(p.ok("banger", "doctor", "--json")), &list); err != nil {
		p.t.Fatal(err)
	}
	problems := map[string]api.Problem{}
	for _, p := range list {
		problems[p.Code] = p
	}
	return problems
}

// An ordinary user's first command makes kernel, image and VM, and everything else works too, but for what takes root.
func TestOrdinaryUser(t *testing.T) {
	beside(t)
	testhost.Need(t, testhost.Mmdebstrap, testhost.Apt)
	p := newPerson(t, true)
	if problem, ok := p.doctor()["image-build"]; ok {
		testhost.Lacks(t, testhost.Userns, errors.New(problem.Text+" ("+problem.Hint+")"))
	}

	if out, errs, code := p.run(nil, "banger", "vm", "run", "--name", "web", "--memory", "512M", "-p", "80", "--", "id", "-un"); out != "root\n" || code != 0 {
		t.Fatalf("the first command: %q, exit code %d\n%s", out, code, errs)
	}
	in := func(args ...string) []string { return append([]string{"banger", "vm", "exec", "web", "--"}, args...) }

	t.Run("where it lies", func(t *testing.T) { p.with(t).testPlaces() })
	t.Run("what root would have", func(t *testing.T) {
		p := p.with(t)
		p.fails("use network bridge: bridges and packet rules take root", "leave --network at auto", "banger", "vm", "run", "--network", "bridge", "--", "true")
		p.fails("dmsnap disks do not work here", "leave the disk driver at auto", "banger", "vm", "run", "--disk", "dmsnap", "--", "true")
		if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(b)) == "1024" {
			p.fails("an ordinary user may not open ports below 1024", "sysctl net.ipv4.ip_unprivileged_port_start=81", "banger", "vm", "run", "-p", "81:80", "--", "true")
		}
		if got := p.ok("banger", "vm", "list", "-q"); got != "web\n" {
			t.Errorf("VMs are left of what was refused: %q", got)
		}
	})
	t.Run("doctor", func(t *testing.T) {
		p := p.with(t)
		problems := p.doctor()
		for _, code := range []string{"tool-missing", "image-build", "no-image", "orphan", "vmm-missing", "socket-gone"} {
			if problem, ok := problems[code]; ok {
				t.Errorf("%+v", problem)
			}
		}
		for _, problem := range problems {
			if problem.Text == "" || problem.Hint == "" && problem.Severity != "info" {
				t.Errorf("nothing to do is said of %+v", problem)
			}
		}
		if n := problems["network-unused"]; !strings.Contains(n.Text, "bridge") || !strings.Contains(n.Hint, "root") {
			t.Errorf("of the bridge doctor says %+v", n)
		}
		if got := p.ok("banger", "doctor", "--leaks"); strings.Contains(got, "ORPHAN") || !strings.Contains(got, "VM web is running") {
			t.Errorf("leaks: %s", got)
		}
	})
	t.Run("doctor misses a socket", func(t *testing.T) {
		p := p.with(t)
		var v api.VMView
		if err := json.Unmarshal([]byte(p.ok("banger", "vm", "show", "web", "--json")), &v); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(v.Runtime.VSockPath, v.Runtime.VSockPath+".away"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Rename(v.Runtime.VSockPath+".away", v.Runtime.VSockPath); err != nil {
				t.Error(err)
			}
		}()
		if problem := p.doctor()["socket-gone"]; !strings.Contains(problem.Text, "VM web runs") || problem.Hint != "banger vm restart web makes it anew" {
			t.Errorf("%+v", problem)
		}
	})
	t.Run("the image is whole", func(t *testing.T) { p.with(t).testOwners() })
	t.Run("files", func(t *testing.T) {
		p := p.with(t)
		p.ok("sh", "-c", "echo there > there && banger vm cp -q there web:/srv/ && banger vm cp -q web:/srv/there back && cmp there back")
		if fi, err := os.Stat(filepath.Join(p.Home, "back")); err != nil || int(fi.Sys().(*syscall.Stat_t).Uid) != p.UID {
			t.Errorf("the copy is not the user's: %v", err)
		}
		if got := p.ok(in("stat", "-c", "%U", "/srv/there")...); got != "root\n" {
			t.Errorf("in the guest it is %q's", got)
		}
	})
	t.Run("ports", func(t *testing.T) {
		p := p.with(t)
		p.ok(in("sh", "-c", `mkfifo /run/said; setsid perl -MIO::Socket::INET -e '
			$s = IO::Socket::INET->new(LocalPort => 80, Listen => 5); $| = 1; print "ready\n"; while ($c = $s->accept) { print $c "hello"; close $c }
		' </dev/null >/run/said 2>&1 & grep -m1 -q ready /run/said`)...)
		var v api.VMView
		if err := json.Unmarshal([]byte(p.ok("banger", "vm", "show", "web", "--json")), &v); err != nil || len(v.Ports) != 1 || v.Ports[0].State != api.PortOpen {
			t.Fatalf("%+v, %v", v.Ports, err)
		}
		c, err := (&box{t: t}).reach(v.Ports[0])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Errorf("the published port says %q, %v", got, err)
		}
	})
	t.Run("jobs", func(t *testing.T) {
		p := p.with(t)
		id := strings.TrimSpace(p.ok("banger", "vm", "exec", "-d", "web", "--", "sh", "-c", "echo out; exit 3"))
		if out, errs, code := p.run(nil, "banger", "vm", "attach", "web", id); out != "out\n" || code != 3 {
			t.Errorf("attach: %q %q %d", out, errs, code)
		}
		p.ok("banger", "vm", "jobs", "web")
	})
	t.Run("ssh", func(t *testing.T) {
		p := p.with(t)
		testhost.Need(t, testhost.SSH)
		if got := p.ok("banger", "vm", "ssh", "web", "--", "hostname"); got != "web\n" {
			t.Errorf("vm ssh: %q", got)
		}
		p.ok("banger", "ssh-config", "--install")
		// Where home is by the passwd file, not by HOME: ssh asks the former.
		if got := p.ok("ssh", "web.vm", "hostname"); got != "web\n" {
			t.Errorf("ssh: %q", got)
		}
		if got := p.ok("banger", "vm", "ssh", "root@web.vm", "--", "id", "-un"); got != "root\n" {
			t.Errorf("vm ssh as it is typed to ssh: %q", got)
		}
		p.ok("banger", "ssh-config", "--uninstall")
		if left, err := os.ReadDir(filepath.Join(p.Home, ".ssh")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
	t.Run("looks", func(t *testing.T) {
		p := p.with(t)
		for _, c := range []struct{ args, want string }{
			{"vm stats --no-stream web", "web"}, {"vm logs web", "EXT4-fs"}, {"vm top web", "/init"}, {"vm wait web --for ready", "web"}, {"vm show web", "Memory:        512M"},
			{"image list", "debian-bookworm"}, {"kernel list", "debian-6.12-cloud"}, {"daemon status", p.Home}, {"image build debian-bookworm", "debian-bookworm"},
		} {
			if got := p.ok(append([]string{"banger"}, strings.Fields(c.args)...)...); !strings.Contains(got, c.want) {
				t.Errorf("%s: no %q in %s", c.args, c.want, got)
			}
		}
	})
	t.Run("a life", func(t *testing.T) {
		p := p.with(t)
		p.ok(in("touch", "/srv/kept", "/root/kept")...)
		p.ok("banger", "vm", "set", "web", "--memory", "640M")
		p.ok("banger", "vm", "rename", "web", "shop")
		p.ok("banger", "vm", "stop", "shop")
		p.ok("banger", "vm", "start", "shop")
		if got := p.ok("banger", "vm", "exec", "shop", "--", "sh", "-c", "hostname; ls /srv/kept /root/kept"); got != "shop\n/root/kept\n/srv/kept\n" {
			t.Errorf("after stop and start: %q", got)
		}
		p.ok("banger", "vm", "delete", "shop")
		for _, dir := range []string{"vms", "run"} {
			entries, _ := os.ReadDir(filepath.Join(p.Home, ".local/state/banger", dir))
			for _, e := range entries {
				if e.Name() != "start.lock" && e.Name() != "bangerd.sock" {
					t.Errorf("left in %s: %s", dir, e.Name())
				}
			}
		}
	})
}

// testPlaces wants everything in the XDG directories, and the user's.
func (p *person) testPlaces() {
	var s api.Status
	if err := json.Unmarshal([]byte(p.ok("banger", "daemon", "status", "--json")), &s); err != nil {
		p.t.Fatal(err)
	}
	state := filepath.Join(p.Home, ".local/state/banger")
	if s.Root != state || s.Socket != filepath.Join(state, "run/bangerd.sock") || s.Database != filepath.Join(state, "banger.db") {
		p.t.Errorf("the daemon says %+v", s)
	}
	err := filepath.WalkDir(p.Home, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(p.Home, path)
		below := false
		for _, dir := range []string{".", ".local/state/banger", ".cache/banger"} {
			below = below || strings.HasPrefix(dir+"/", rel+"/") || strings.HasPrefix(rel, dir+"/")
		}
		if st := fi.Sys().(*syscall.Stat_t); !below || int(st.Uid) != p.UID {
			p.t.Errorf("%s of user %d", path, st.Uid)
		}
		return nil
	})
	if err != nil {
		p.t.Error(err)
	}

	env := []string{}
	for _, name := range []string{"STATE", "CACHE", "CONFIG"} {
		env = append(env, "XDG_"+name+"_HOME="+filepath.Join(p.Home, "x", name))
	}
	out, errs, code := p.run(env, "banger", "image", "list", "--json")
	_, _, _ = p.run(env, "banger", "daemon", "stop")
	if out != "[]\n" || code != 0 {
		p.t.Errorf("with other directories: %q %s %d", out, errs, code)
	}
	for _, dir := range []string{"STATE/banger/banger.db", "CACHE/banger"} {
		if _, err := os.Stat(filepath.Join(p.Home, "x", dir)); err != nil {
			p.t.Error(err)
		}
	}
}

// testOwners asks the image's root disk for what gets lost where a build does not map ids: owners, set-id bits, capabilities.
func (p *person) testOwners() {
	var images []vm.Image
	if err := json.Unmarshal([]byte(p.ok("banger", "image", "list", "--json")), &images); err != nil || len(images) != 1 {
		p.t.Fatalf("%+v, %v", images, err)
	}
	root := filepath.Join(p.Home, ".local/state/banger/images", strings.TrimPrefix(images[0].Digest, "sha256:"), "root.ext4")
	for _, c := range []struct{ ask, want string }{
		{"stat /usr/bin/su", "Mode:  04755"},
		{"stat /usr/bin/su", "User:     0   Group:     0"},
		{"stat /usr/bin/chage", "Mode:  02755"},
		{"stat /etc/shadow", "User:     0   Group:    42"},
		{"ea_list /usr/bin/ping", "01 00 00 02 00 20 00 00"}, // version 2: good in every namespace
	} {
		if out := p.ok("/usr/sbin/debugfs", "-R", c.ask, root); !strings.Contains(out, c.want) {
			p.t.Errorf("debugfs %s: no %q in %s", c.ask, c.want, out)
		}
	}
	p.ok("/usr/sbin/e2fsck", "-fn", root)
}

// A user to whom root gave no ids is told so, and what root has to do, before anything is downloaded.
func TestUserWithoutIDs(t *testing.T) {
	beside(t)
	testhost.Need(t, testhost.Mmdebstrap)
	p := newPerson(t, false)
	const words, hint = "banger-test has no ids of its own", "as root: usermod --add-subuids "
	if problem := p.doctor()["image-build"]; !strings.Contains(problem.Text, words) || !strings.Contains(problem.Hint, hint) || problem.Severity != "warning" {
		t.Errorf("doctor says %+v", problem)
	}
	p.fails(words, hint, "banger", "image", "build", "debian-bookworm")
	entries, _ := os.ReadDir(filepath.Join(p.Home, ".local/state/banger/images"))
	if len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}
