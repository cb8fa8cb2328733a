package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/vm"
)

func TestCommit(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	refused := func(ref string, code vm.Code, words string) {
		t.Helper()
		_, err := d.CommitVM(t.Context(), ref, api.CommitRequest{Image: "mine"}, nil)
		if vm.CodeOf(err) != code || !strings.Contains(err.Error()+"; "+vm.HintOf(err), words) {
			t.Errorf("%v (code %s, hint %q), want code %s with %q", err, vm.CodeOf(err), vm.HintOf(err), code, words)
		}
	}
	refused("none", vm.CodeNotFound, "none")
	if _, err := d.Create(t.Context(), api.CreateRequest{Name: "new"}, nil); err != nil {
		t.Fatal(err)
	}
	refused("new", vm.CodeConflict, "never started, or reset since; banger image tag img mine")

	r := d.run("web", false)
	written(t, r)
	refused("web", vm.CodeConflict, "commit VM web: it is running, and its system disk in use; banger vm stop web")
	if _, err := d.Pause(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	refused("web", vm.CodeConflict, "it is paused")
	if _, err := os.Stat(filepath.Join(w.paths.State, "adopted")); err == nil {
		t.Error("what was refused was begun")
	}

	watch := d.Watch()
	_, err := d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	_, err = watch.Stopped(t.Context(), r.ID, nil)
	must(t, err)
	for range 2 {
		img, err := d.CommitVM(t.Context(), "web", api.CommitRequest{Image: "mine"}, nil)
		if err != nil || img.Name != "mine" || img.Source != "VM web of img" || !slices.Equal(img.Env, r.Spec.Env) {
			t.Errorf("%+v, %v", img, err)
		}
		if b, err := os.ReadFile(filepath.Join(w.paths.State, "adopted")); err != nil || string(b) != "written by the guest" {
			t.Errorf("the image holds %q, %v", b, err)
		}
	}

	// Started while its disk is read: it starts, and the commit fails.
	w.faults.flattening = func() {
		_, err := d.Start(t.Context(), "web")
		must(t, err)
	}
	refused("web", vm.CodeConflict, "it was started, reset or deleted while its disk was read; try again")
	w.faults.flattening = func() {
		_, err := d.Delete(t.Context(), "web")
		must(t, err)
		must(t, watch.Gone(t.Context(), r.ID, nil))
	}
	_, err = d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	_, err = watch.Stopped(t.Context(), r.ID, nil)
	must(t, err)
	refused("web", vm.CodeConflict, "it was started, reset or deleted")
}
