package dmsnap

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/disk"
	"banger/internal/testhost"
	"banger/internal/vm"
)

func killAfter(n int) time.Duration {
	return 200*time.Millisecond + time.Duration(n)*97*time.Millisecond
}

func wantHealth(t *testing.T, o disk.Overlay, state string) disk.Health {
	t.Helper()
	h, err := New().Health(t.Context(), o)
	if err != nil || h.State != state || h.Total < 1<<20 || h.Used < 0 || h.Used > h.Total || h.HostFree < 0 {
		t.Fatalf("health %+v %v, want state %s", h, err, state)
	}
	return h
}

// TestEveryChunkFits writes all of images whose chunks fill their last area exactly, nearly and just over.
func TestEveryChunkFits(t *testing.T) {
	for _, chunks := range []int{perArea - 1, perArea, perArea + 1, 2 * perArea} {
		o := overlay(t, chunks*chunk)
		a := ensure(t, o)
		must(t, put(t, a, 0, bytes.Repeat([]byte("mine"), chunks*chunk/4)))
		if h, err := New().Health(t.Context(), o); err != nil || h.State != disk.StoreOK || h.Used < int64(chunks*chunk) || h.Total-h.Used < 8*chunk {
			t.Errorf("%d chunks written: %+v %v", chunks, h, err)
		}
		must(t, New().Detach(t.Context(), o))
		a = ensure(t, o)
		if got := get(t, a, 0, 4) + get(t, a, int64(chunks*chunk-4), 4); got != "minemine" {
			t.Errorf("%d chunks: holds %q after it was attached again", chunks, got)
		}
	}
}

// TestFrozen holds that a frozen disk's writes wait, and either go on or, when it is detached or abandoned, fail.
func TestFrozen(t *testing.T) {
	for _, end := range []string{"thaw", "detach", "abandon"} {
		o := overlay(t, 1<<20)
		a := ensure(t, o)
		for range 2 {
			must(t, New().Freeze(t.Context(), o))
		}
		if h := wantHealth(t, o, disk.StoreOK); !h.Frozen {
			t.Errorf("frozen: %+v", h)
		}
		wrote := make(chan error, 1)
		go func() { wrote <- put(t, a, 0, []byte("mine")) }()
		select {
		case err := <-wrote:
			t.Fatalf("a write to a frozen disk returned %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		want := "base"
		for range 2 {
			switch end {
			case "thaw":
				want = "mine"
				must(t, New().Thaw(t.Context(), o))
			case "detach":
				must(t, New().Detach(t.Context(), o))
			case "abandon":
				must(t, New().Abandon(t.Context(), o))
			}
		}
		if err := <-wrote; (err == nil) != (want == "mine") {
			t.Errorf("%s: the write that waited: %v", end, err)
		}
		if got := get(t, ensure(t, o), 0, 4); got != want {
			t.Errorf("%s: holds %q", end, got)
		}
		wantHealth(t, o, disk.StoreOK)
	}
}

func TestFreezeOfNothing(t *testing.T) {
	o := overlay(t, 1<<20)
	must(t, New().Freeze(t.Context(), o))
	must(t, New().Thaw(t.Context(), o))
	must(t, New().Abandon(t.Context(), o))
	if h, err := New().Health(t.Context(), o); err == nil {
		t.Errorf("health of nothing: %+v", h)
	}
}

// TestHostFull lets the host's file system run full under a guest that writes: that is told, refused, and can be repaired
// with what was written before.
func TestHostFull(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	o := overlay(t, 32<<20)
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	small := filepath.Join(filepath.Dir(filepath.Dir(o.Path)), "small")
	must(t, os.WriteFile(small, nil, 0o600))
	must(t, os.Truncate(small, 16<<20))
	run(t, "mkfs.ext4", "-q", small)
	run(t, "mount", "-o", "loop", small, filepath.Dir(o.Path))
	t.Cleanup(func() { run(t, "umount", filepath.Dir(o.Path)) })
	t.Cleanup(func() { must(t, New().Remove(context.Background(), o)) })

	fill := filepath.Join(filepath.Dir(o.Path), "fill")
	must(t, os.WriteFile(fill, make([]byte, 6<<20), 0o600))
	a := ensure(t, o)
	must(t, put(t, a, 4096, []byte("kept")))
	before := wantHealth(t, o, disk.StoreOK)
	const from, size = 1 << 20, 24 << 20
	if err := put(t, a, from, bytes.Repeat([]byte("more"), size/4)); err == nil {
		t.Fatal("more was written than the host has")
	}
	after := wantHealth(t, o, disk.StoreInvalid)
	if after.HostFree >= before.HostFree {
		t.Errorf("free before %d, after %d", before.HostFree, after.HostFree)
	}
	refused := func() {
		t.Helper()
		if _, err := New().Ensure(t.Context(), o); vm.CodeOf(err) != vm.CodeCorrupt || vm.HintOf(err) == "" {
			t.Errorf("Ensure: %v (code %s), want code corrupt with a hint", err, vm.CodeOf(err))
		}
	}
	refused()
	if err := New().Repair(t.Context(), o); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("Repair while attached: %v", err)
	}
	must(t, New().Detach(t.Context(), o))
	wantHealth(t, o, disk.StoreInvalid)
	refused()
	must(t, os.Remove(fill))
	for range 2 {
		must(t, New().Repair(t.Context(), o))
	}
	a = ensure(t, o)
	wantHealth(t, o, disk.StoreOK)
	if got := get(t, a, 4096, 4) + get(t, a, 31<<20, 4); got != "keptbase" {
		t.Errorf("repaired it holds %q", got)
	}
	old, new := strings.Repeat("base", chunk/4), strings.Repeat("more", chunk/4)
	for at, all := 0, get(t, a, from, size); at < size; at += chunk {
		if c := all[at : at+chunk]; c != old && c != new {
			t.Fatalf("repaired, the chunk at %d is neither what was before nor what was written: %.64q …", from+at, c)
		}
	}
	must(t, put(t, a, 8192, []byte("more")))
}
