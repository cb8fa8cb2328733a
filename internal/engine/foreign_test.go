package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"banger/internal/handles"
	"banger/internal/vm"
)

// FuzzHandlesFile puts any bytes where a VM's handles.json was, while no daemon lives. Whatever they are, the next daemon
// neither falls over them nor ends a process that is not the VM's, and the VM can be deleted. In the text, @pid@, @start@
// and @boot@ are those of the process of another VM, @other@ is its id and @id@ the VM's own: what a file would have to
// say to do harm.
func FuzzHandlesFile(f *testing.F) {
	for _, text := range []string{
		"", "{", "null", "[]", "\x00\xff", `{"vm":"@id@"}`,
		`{"vm":"@id@","pid":@pid@,"start_time":@start@,"boot_id":"@boot@"}`,
		`{"vm":"@id@","pid":@pid@,"start_time":@start@,"boot_id":"another"}`,
		`{"vm":"@id@","pid":@pid@}`,
		`{"vm":"@id@","pid":1,"start_time":0,"boot_id":"@boot@"}`,
		`{"vm":"@id@","pid":-1,"start_time":@start@,"boot_id":"@boot@"}`,
		`{"vm":"@id@","pid":99999999999999999999}`,
		`{"vm":"@id@","VM":"@other@","PID":@pid@,"start_time":@start@,"boot_id":"@boot@"}`,
		`{"vm":"@other@","pid":@pid@,"start_time":@start@,"boot_id":"@boot@"}`,
		`{"vm":"@id@","boot_id":"@boot@","tap_device":"bt@other@","base_loop":"/dev/loop0","cow_loop":"/","dm_name":"banger-@other@","cgroup":"/sys/fs/cgroup"}`,
	} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, lives bool) {
		w := newWorld(t)
		d := w.start()
		r, other := d.run("web", false), d.run("other", false)
		theirs, _ := w.host.ProcessOf(other.ID)
		mine, _ := w.host.ProcessOf(r.ID)
		d.kill()
		if !lives {
			must(t, w.host.Exit(mine, "signal: killed"))
		}
		text = strings.NewReplacer("@pid@", strconv.Itoa(theirs.PID), "@start@", fmt.Sprint(theirs.StartTime),
			"@boot@", theirs.BootID, "@id@", string(r.ID), "@other@", string(other.ID)).Replace(text)
		must(t, os.WriteFile(filepath.Join(r.Runtime.VMDir, handles.FileName), []byte(text), 0o600))

		d = w.start()
		want := vm.WantStopped
		if lives {
			want = vm.WantRunning
		}
		got := d.until(r.ID, "what became of it", func(r vm.VMRecord) bool {
			return r.Want == want && (lives || r.Runtime.State == vm.StateStopped)
		})
		if o := d.Observe(got); o.Alive != lives {
			t.Errorf("alive: %v, want %v, by %q", o.Alive, lives, text)
		}
		_, err := d.Delete(t.Context(), string(r.ID))
		must(t, err)
		d.untilGone(r.ID)
		if p, ok := w.host.ProcessOf(other.ID); !ok || p != theirs {
			t.Errorf("another VM's process was ended by %q", text)
		}
		if _, ok := w.host.ProcessOf(r.ID); ok || exists(r.Runtime.VMDir) || !exists(other.Runtime.VMDir) {
			t.Errorf("not what was deleted is gone, by %q", text)
		}
	})
}

// A process that took the pid of a dead VMM, in the same boot, is not it, and is left alone by all that could end it.
func TestAReusedPIDIsLeftAlone(t *testing.T) {
	for name, act := range map[string]func(d *daemon, id vm.ID) error{
		"stop":   func(d *daemon, id vm.ID) error { _, err := d.Stop(t.Context(), string(id), false, 0); return err },
		"kill":   func(d *daemon, id vm.ID) error { _, err := d.Stop(t.Context(), string(id), true, 0); return err },
		"delete": func(d *daemon, id vm.ID) error { _, err := d.Delete(t.Context(), string(id)); return err },
		"start":  func(d *daemon, id vm.ID) error { _, err := d.Start(t.Context(), string(id)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.run("web", false)
			p, _ := w.host.ProcessOf(r.ID)
			d.kill()
			must(t, w.host.Exit(p, "signal: killed"))
			now, err := w.host.Reuse(p.PID)
			must(t, err)
			// Even where the file knows who has the pid now.
			must(t, handles.NewCache().Set(t.Context(), r.ID, r.Runtime.VMDir, handles.WithProcess(vm.VMHandles{}, now)))
			d = w.start()
			if o := d.Observe(r); o.Alive {
				t.Error("it is taken for the VMM")
			}
			must(t, act(d, r.ID))
			switch name {
			case "delete":
				d.untilGone(r.ID)
			case "start":
				d.until(r.ID, "running", func(r vm.VMRecord) bool { return r.State == vm.StateRunning })
			default:
				d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
			}
			if !w.host.Alive(now) {
				t.Error("it was ended")
			}
		})
	}
}
