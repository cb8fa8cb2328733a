package disktest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/disk"
)

// The cases here are about what a driver has in the kernel. For drivers that have nothing there, they hold that content
// survives all the same.

// shared holds that overlays of one image come and go without each other's notice.
func (s suite) shared(t *testing.T) {
	o := s.overlay(t)
	other := s.second(t, o)
	a, b := s.ensure(t, o), s.ensure(t, other)
	if a.BaseLoop != b.BaseLoop {
		t.Errorf("one image has two loop devices, %s and %s", a.BaseLoop, b.BaseLoop)
	}
	if a.Path == b.Path || a.CowLoop != "" && a.CowLoop == b.CowLoop || a.DMName != "" && a.DMName == b.DMName {
		t.Errorf("two overlays share %+v and %+v", a, b)
	}
	write(t, b, 4096, "mine")
	if err := s.d.Detach(t.Context(), o); err != nil {
		t.Fatalf("Detach of one of two: %v", err)
	}
	if got := read(t, b, 4096, 4) + read(t, b, 8192, 4); got != "minebase" {
		t.Errorf("after the other was detached it holds %q", got)
	}
	var wg sync.WaitGroup // one ends while another starts
	for _, each := range []disk.Overlay{o, other} {
		wg.Go(func() {
			for range 3 {
				_, err := s.d.Ensure(t.Context(), each)
				if err := errors.Join(err, s.d.Detach(t.Context(), each)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left := loopOf(t, o.Base); left != "" {
		t.Errorf("%s is left on the image that nobody uses", left)
	}
	if got := read(t, s.ensure(t, other), 4096, 4); got != "mine" {
		t.Errorf("in the end it holds %q", got)
	}
}

// behindOurBack takes the kernel's objects away as a person would.
func (s suite) behindOurBack(t *testing.T) {
	o := s.overlay(t)
	a := s.ensure(t, o)
	write(t, a, 4096, "mine")
	for _, gone := range [][]string{{"dm"}, {"cow"}, {"base"}, {"dm", "cow"}, {"dm", "base"}, {"dm", "cow", "base"}} {
		for _, what := range gone {
			takeAway(t, a, what)
		}
		a = s.ensure(t, o)
		if got := read(t, a, 4096, 4) + read(t, a, 8192, 4); got != "minebase" {
			t.Errorf("after %v was taken away it holds %q", gone, got)
		}
		for _, what := range gone {
			takeAway(t, a, what)
		}
		for range 2 {
			if err := s.d.Detach(t.Context(), o); err != nil {
				t.Errorf("Detach after %v was taken away: %v", gone, err)
			}
		}
		a = s.ensure(t, o)
	}
}

func takeAway(t *testing.T, a disk.Attached, what string) {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	var args []string
	switch {
	case what == "dm" && a.DMName != "":
		args = []string{"dmsetup", "remove", "--retry", a.DMName}
	case what == "cow" && a.CowLoop != "":
		args = []string{"losetup", "-d", a.CowLoop}
	case what == "base" && a.BaseLoop != "":
		args = []string{"losetup", "-d", a.BaseLoop}
	default:
		return
	}
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// filesGone deletes the image, or the overlay, under an attached overlay: it must still come off whole.
func (s suite) filesGone(t *testing.T) {
	for _, which := range []string{"image", "overlay"} {
		o := s.overlay(t)
		s.ensure(t, o)
		path := o.Base
		if which == "overlay" {
			path = o.Path
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.d.Detach(t.Context(), o); err != nil {
				t.Errorf("Detach without %s: %v", which, err)
			}
		}
		if left := loopOf(t, path); left != "" {
			t.Errorf("%s stays on the deleted %s", left, which)
		}
		for range 2 {
			if err := s.d.Remove(t.Context(), o); err != nil {
				t.Errorf("Remove without %s: %v", which, err)
			}
		}
		if got := list(t, filepath.Dir(o.Path)); len(got) != 0 {
			t.Errorf("Remove without %s left %v", which, got)
		}
	}
}

// loopOf finds a loop device by its file's path, deleted or not; "" when there is none.
func loopOf(t *testing.T, path string) string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), path) {
			return strings.Split(f, "/")[3]
		}
	}
	return ""
}
