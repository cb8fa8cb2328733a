package lab

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banger/internal/testhost"
)

var transcript = flag.String("transcript", "", "write what was typed in the seed scenario, and what came, to this file")

// scene is a person at the lab's shell: what is typed, and what comes, goes into the transcript.
type scene struct {
	*Lab
	t    *testing.T
	text strings.Builder
}

func (s *scene) say(format string, args ...any) { fmt.Fprintf(&s.text, "\n"+format+"\n\n", args...) }

// typed runs a line in the lab's shell, which must succeed, and returns what it printed on stdout.
func (s *scene) typed(line string) string {
	s.t.Helper()
	stdout, stderr := s.succeed(line)
	s.text.WriteString("    $ " + strings.ReplaceAll(line, "\n", "\n    > ") + "\n")
	for _, out := range []string{stderr, stdout} {
		for l := range strings.Lines(out) {
			s.text.WriteString("    " + strings.TrimRight(l, "\n") + "\n")
		}
	}
	s.t.Logf("$ %s\n%s%s", line, stderr, stdout)
	return strings.TrimSpace(stdout)
}

func (s *scene) want(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// held is everything on the lab that a VM could leave, by the words of the tools that show it.
const held = `losetup -a; dmsetup ls; ip -br link | cut -d' ' -f1; nft list ruleset; ls -d /sys/fs/cgroup/banger-* 2>/dev/null
ls -d /var/lib/banger/vms/*/jail 2>/dev/null; ps -e -o args= | grep -E '^[^ ]*(firecracker|jailer|qemu-system)'; true`

// handlesOf reads a VM's handles.json.
func (s *scene) handlesOf(name string) map[string]any {
	s.t.Helper()
	var v struct {
		Dir string `json:"vm_dir"`
	}
	if err := json.Unmarshal([]byte(s.quiet("banger vm show --json "+name)), &v); err != nil {
		s.t.Fatal(err)
	}
	h := map[string]any{}
	if err := json.Unmarshal([]byte(s.typed("cat "+v.Dir+"/handles.json")), &h); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// quiet is typed, but not for the transcript.
func (s *scene) quiet(line string) string {
	s.t.Helper()
	stdout, _ := s.succeed(line)
	return strings.TrimSpace(stdout)
}

var runNamed = regexp.MustCompile(`vm run .*--name (\w+)`)

// succeed runs a line to its end. Where the emulated KVM lost the guest that it started, it is run once more.
func (s *scene) succeed(line string) (stdout, stderr string) {
	s.t.Helper()
	stdout, stderr, code, err := s.Exec(s.t.Context(), "bash", "-c", line)
	if err != nil && testhost.LostGuest(err.Error()+stderr) {
		s.t.Logf("$ %s\nonce more, since the emulated KVM lost the guest: %v", line, err)
		if m := runNamed.FindStringSubmatch(line); m != nil {
			_, _, _, _ = s.Exec(s.t.Context(), "banger", "vm", "delete", "-q", m[1])
		}
		stdout, stderr, code, err = s.Exec(s.t.Context(), "bash", "-c", line)
	}
	if err != nil || code != 0 {
		s.t.Fatalf("$ %s\nexit code %d, %v\n%s%s", line, code, err, stdout, stderr)
	}
	return stdout, stderr
}

// quiesce waits until no VM is in the middle of something. The daemon answers while it still takes down what many dead
// VMs held.
func (s *scene) quiesce() {
	s.t.Helper()
	s.quiet(`for i in $(seq 300); do banger vm list | grep -qwE 'stopping|starting|removing' || exit 0; sleep 0.2; done; banger vm list >&2; exit 1`)
}

// testSeed is what the project exists for, on the real Firecracker in its jail, with a dm-snapshot for its disk and a tap
// on the bridge: the daemon dies at any moment, and VMs are found again, or taken down whole.
func (l *Lab) testSeed(t *testing.T) {
	if err := l.Equip(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &scene{Lab: l, t: t}
	before := s.quiet(held)

	s.say("A machine in one command. Firecracker is installed and KVM proven, so that is what runs it, in a jail; the file system has no reflinks, so its disk is a dm-snapshot.")
	s.typed("banger vmm install -q firecracker --from " + FirecrackerDir)
	s.want("the command's output", s.typed("banger vm run -q --name handles-test -- cat /etc/hostname"), "handles-test")
	show := s.typed("banger vm show handles-test")
	for _, words := range []string{"firecracker", "dmsnap", "bridge"} {
		if !strings.Contains(show, words) {
			t.Errorf("vm show says nothing of %s", words)
		}
	}

	s.say("What serves it now is in `handles.json`, and all of it is true.")
	h := s.handlesOf("handles-test")
	text := func(key string) string { v, _ := h[key].(string); return v }
	pid := fmt.Sprint(int(h["pid"].(float64)))
	id := text("vm")
	if got := s.typed("ps -o args= -p " + pid); !strings.Contains(got, "firecracker --id "+id) {
		t.Errorf("process %s is %q", pid, got)
	}
	s.typed("ip -br link show " + text("tap_device"))
	loops := s.typed("losetup -a")
	for _, loop := range []string{text("base_loop"), text("cow_loop")} {
		if !strings.Contains(loops, loop+":") {
			t.Errorf("no %s", loop)
		}
	}
	if got := s.typed("dmsetup ls"); !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(text("dm_name")) + `\s+\(` + text("dm_dev") + `\)$`).MatchString(got) {
		t.Errorf("no device-mapper device %s (%s)", text("dm_name"), text("dm_dev"))
	}

	s.say("None of it is in the database.")
	s.want("matches in the database", s.typed(fmt.Sprintf("cat /var/lib/banger/banger.db* | grep -acE '%s|/dev/loop|%s|\"pid\"'; true", text("tap_device"), text("dm_name"))), "0")

	s.say("The daemon is killed. The next command starts another, which finds the VM: the same process.")
	const killDaemon = "kill -9 $(cat /var/lib/banger/bangerd.lock)"
	s.typed(killDaemon)
	s.typed("banger vm list")
	s.want("the process", fmt.Sprint(int(s.handlesOf("handles-test")["pid"].(float64))), pid)
	s.want("over ssh", s.typed("banger vm ssh handles-test -- sh -c 'hostname; echo kept > /srv/x; echo work > /root/y; sync'"), "handles-test")

	s.say("The daemon and the VMM are killed. The next daemon takes down what the VM held, and says why it is stopped.")
	s.typed(killDaemon + " && kill -9 " + pid)
	s.quiesce()
	if got := s.typed("banger vm show handles-test | grep -E '^(State|Last error):'"); !strings.Contains(got, "stopped") {
		t.Errorf("it is %q", got)
	}
	s.want("what is held", s.typed(held), before)
	s.typed("banger vm start -q handles-test")
	s.want("its disks", s.typed("banger vm exec handles-test -- cat /srv/x /root/y"), "kept\nwork")

	s.say("A QEMU VM beside it, under the same daemon, on the same bridge, with the same kind of disk. Each keeps its VMM.")
	s.typed("banger vm run -q --name beside --vmm qemu --network bridge --disk dmsnap -d")
	s.want("both", s.typed(`banger vm list | tail -n +2 | awk '{ print $1, $2, $4 }'`), "handles-test running firecracker\nbeside running qemu")
	address := s.quiet(`banger vm show --json beside | grep -oE '"guest_ip": "[^"]*"' | cut -d'"' -f4`)
	s.want("the guest's resolver", s.typed("banger vm exec handles-test -- getent hosts beside.vm | tr -s ' '"), address+" beside.vm")

	s.say("The power is cut while both run. Afterwards nothing stale is believed, and nothing is left.")
	boot := s.quiet("cat /proc/sys/kernel/random/boot_id")
	if err := l.HardReset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := s.typed("cat /proc/sys/kernel/random/boot_id"); again == boot {
		t.Error("the boot id is the same")
	}
	s.typed("modprobe -a kvm-amd dm-snapshot loop tun")
	s.quiesce()
	list := s.typed("banger vm list")
	if strings.Count(list, "stopped") != 2 {
		t.Errorf("after the reset: %s", list)
	}
	if got := s.typed("banger vm show handles-test | grep -E '^(State|Last error):'"); !strings.Contains(got, "rebooted") {
		t.Errorf("why: %q", got)
	}
	s.want("what is held", s.typed(held), before)
	s.typed("banger vm start -q handles-test")
	s.want("its disks", s.typed("banger vm exec handles-test -- cat /srv/x /root/y"), "kept\nwork")

	s.say("Removed, they leave the machine as it was before the first command.")
	s.typed("banger vm delete handles-test beside")
	s.want("what is held", s.typed(held), before)
	s.want("VM directories", s.typed("ls /var/lib/banger/vms /run/banger"), "/run/banger:\nbangerd.sock\nstart.lock\n\n/var/lib/banger/vms:")
	s.quiet("banger daemon stop")
	if !t.Failed() {
		s.write()
	}
}

// write makes the page of docs that shows it.
func (s *scene) write() {
	if *transcript == "" {
		return
	}
	kernel := s.quiet("uname -r")
	page := "# The seed scenario\n\nTyped by `make transcript` in the lab: a banger VM with Linux " + kernel +
		", systemd, device-mapper and a KVM that is emulated, so that every boot takes ten times what it takes on real hardware.\n" + s.text.String()
	path := *transcript
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.Repo, path)
	}
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		s.t.Error(err)
	}
}
