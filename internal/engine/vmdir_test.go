package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/handles"
	"banger/internal/vm"
)

// Somebody's directory has the scratch file's name. It goes with the VM's own directory, and with nothing less.
func TestADirectoryInThePlaceOfTheHandles(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	path := filepath.Join(r.Runtime.VMDir, handles.FileName)
	must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "notes"), nil, 0o600)))
	d.kill()
	d = w.start()
	if _, err := d.Agent(t.Context(), "web"); err != nil {
		t.Errorf("the next daemon does not take it over: %v", err)
	}
	_, err := d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	if _, err := os.Stat(filepath.Join(path, "notes")); err != nil {
		t.Errorf("a stop removes what is not a run's: %v", err)
	}
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	if _, err = d.Watch().Started(t.Context(), r.ID, nil); err == nil || !strings.Contains(err.Error(), path+" is a directory") || !strings.Contains(vm.HintOf(err), "move it away") {
		t.Errorf("started: %v, hint %q", err, vm.HintOf(err))
	}
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

// A VM's directory that somebody moved and put a link in its place is not deleted behind the link, nor forgotten there.
func TestALinkInThePlaceOfAVMsDirectory(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	_, err := d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	must(t, errors.Join(os.Rename(r.Runtime.VMDir, elsewhere), os.Symlink(elsewhere, r.Runtime.VMDir)))
	before := names(t, elsewhere)
	whole := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), r.Runtime.VMDir+" is a link to "+elsewhere) || !strings.Contains(vm.HintOf(err), "move") {
			t.Errorf("%v, hint %q", err, vm.HintOf(err))
		}
		if now := names(t, elsewhere); now != before {
			t.Errorf("behind the link were %s, and are %s", before, now)
		}
	}
	_, err = d.Delete(t.Context(), "web")
	whole(err)
	_, err = d.DeleteStopped(t.Context(), "web")
	whole(err)
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Want != vm.WantStopped {
		t.Errorf("a deletion that is refused changes nothing: %+v, %v", now, err)
	}

	// The link came when it was to be deleted already.
	_, err = d.Store.SetWant(t.Context(), r.ID, vm.WantGone, vm.StateRemoving)
	must(t, err)
	d.kill()
	d = w.start()
	now, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	if now.State != vm.StateRemoving || now.Runtime.RetryAt.IsZero() {
		t.Errorf("it is %+v", now)
	}
	whole(vm.Errorf(vm.CodeConflict, "%s", now.Runtime.LastError).WithHint("move"))

	must(t, errors.Join(os.Remove(r.Runtime.VMDir), os.Rename(elsewhere, r.Runtime.VMDir)))
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}
