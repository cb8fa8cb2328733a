package handles

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/vm"
)

const (
	id   = vm.ID("0123456789ab")
	boot = "boot-now"
)

// full has every field set, so that a field the file forgets is noticed.
func full(t *testing.T) vm.VMHandles {
	t.Helper()
	var h vm.VMHandles
	v := reflect.ValueOf(&h).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(100 + i))
		case reflect.Uint64:
			f.SetUint(uint64(100 + i))
		case reflect.String:
			f.SetString(fmt.Sprintf("value-%d", i))
		default:
			t.Fatalf("field %s: a kind this test does not know", v.Type().Field(i).Name)
		}
	}
	return h
}

func TestScratchFileRoundtrip(t *testing.T) {
	dir, c := t.TempDir(), NewCache()
	want := full(t)
	if err := c.Set(t.Context(), id, dir, want); err != nil {
		t.Fatal(err)
	}
	if got := Read(id, dir); got != want {
		t.Errorf("file: got %+v, want %+v", got, want)
	}
	if got := c.Get(id); got != want {
		t.Errorf("cache: got %+v, want %+v", got, want)
	}
	for range 2 { // clearing twice is success
		if err := c.Clear(t.Context(), id, dir); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Get(id); !got.IsZero() || !Read(id, dir).IsZero() {
		t.Errorf("after Clear the cache still has %+v", got)
	}
}

func TestFileIsWrittenBeforeTheCache(t *testing.T) {
	c := NewCache()
	err := c.Set(t.Context(), id, filepath.Join(t.TempDir(), "absent"), full(t))
	if err == nil {
		t.Fatal("writing into an absent directory succeeded")
	}
	if got := c.Get(id); !got.IsZero() {
		t.Errorf("the cache has %+v though the file was not written", got)
	}
}

func TestUnusableScratchFilesReadAsNothing(t *testing.T) {
	good := `{"vm":"0123456789ab","pid":42,"start_time":7,"boot_id":"b"}`
	for name, content := range map[string]string{
		"empty":        "",
		"truncated":    good[:len(good)/2],
		"garbage":      "\x00\xff\x17",
		"array":        "[1,2]",
		"wrong type":   `{"vm":"0123456789ab","pid":"x"}`,
		"negative pid": `{"vm":"0123456789ab","pid":-1}`,
		"another VM's": `{"vm":"ffffffffffff","pid":42}`,
		"nobody's":     `{"pid":42}`,
		"huge":         `{"vm":"0123456789ab","pid":42,"tap_device":"` + string(make([]byte, maxFile)) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, FileName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := Read(id, dir); got != (vm.VMHandles{}) {
				t.Errorf("got %+v, want nothing", got)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		if got := Read(id, t.TempDir()); got != (vm.VMHandles{}) {
			t.Errorf("got %+v, want nothing", got)
		}
	})
	for name, put := range map[string]func(path string) error{
		"a fifo is not waited for":      func(path string) error { return unix.Mkfifo(path, 0o600) }, // nobody writes: opening it would hang
		"a device is not read for ever": func(path string) error { return os.Symlink("/dev/zero", path) },
		"a link is not followed": func(path string) error {
			return errors.Join(os.WriteFile(path+".to", []byte(good), 0o600), os.Symlink(path+".to", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := put(filepath.Join(dir, FileName)); err != nil {
				t.Fatal(err)
			}
			read := make(chan vm.VMHandles, 1)
			go func() { read <- Read(id, dir) }()
			select {
			case got := <-read:
				if got != (vm.VMHandles{}) {
					t.Errorf("got %+v, want nothing", got)
				}
			case <-time.After(5 * time.Second):
				t.Error("it is waited for")
			}
		})
	}
}

func finder(p proc.Identity, ok bool, err error) Finder {
	return func(context.Context) (proc.Identity, bool, error) { return p, ok, err }
}

func TestRediscover(t *testing.T) {
	scratch := vm.VMHandles{PID: 10, StartTime: 5, BootID: boot, TapDevice: "bt0", BaseLoop: "/dev/loop7", DMName: "bngr-x"}
	live := proc.Identity{PID: 20, StartTime: 9, BootID: boot}
	tests := []struct {
		name    string
		scratch vm.VMHandles
		find    Finder
		want    vm.VMHandles
		alive   bool
		fails   bool
	}{
		{"a live find beats the file and keeps the rest", scratch, finder(live, true, nil),
			vm.VMHandles{PID: 20, StartTime: 9, BootID: boot, TapDevice: "bt0", BaseLoop: "/dev/loop7", DMName: "bngr-x"}, true, false},
		{"a live find without a file", vm.VMHandles{}, finder(live, true, nil), vm.VMHandles{PID: 20, StartTime: 9, BootID: boot}, true, false},
		{"a dead process's handles are returned for clean-up", scratch, finder(proc.Identity{}, false, nil), scratch, false, false},
		{"objects of an earlier boot are not believed beside a live process",
			vm.VMHandles{PID: 10, BootID: "boot-before", TapDevice: "bt0"}, finder(live, true, nil), vm.VMHandles{PID: 20, StartTime: 9, BootID: boot}, true, false},
		{"nothing at all", vm.VMHandles{}, finder(proc.Identity{}, false, nil), vm.VMHandles{}, false, false},
		{"a failed search is an error, and keeps what is known", scratch, finder(proc.Identity{}, false, errors.New("no /proc")), scratch, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.scratch != (vm.VMHandles{}) {
				if err := NewCache().Set(t.Context(), id, dir, tt.scratch); err != nil {
					t.Fatal(err)
				}
			}
			c := NewCache() // as after a crash
			got, alive, err := c.Rediscover(t.Context(), id, dir, boot, tt.find)
			if (err != nil) != tt.fails {
				t.Fatalf("err = %v", err)
			}
			if got != tt.want || alive != tt.alive {
				t.Errorf("got %+v alive=%v, want %+v alive=%v", got, alive, tt.want, tt.alive)
			}
			if !tt.fails && c.Get(id) != tt.want {
				t.Errorf("cache has %+v", c.Get(id))
			}
			proven := proc.Identity{}
			if tt.alive {
				proven = live
			}
			if got := c.Process(id); got != proven {
				t.Errorf("the process is %+v, want %+v: what only the file names proves nothing", got, proven)
			}
		})
	}
}

func TestCacheUnderConcurrency(t *testing.T) {
	c, dir := NewCache(), t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			me := vm.ID(fmt.Sprintf("%012x", i%4))
			mine := filepath.Join(dir, string(me))
			if err := os.MkdirAll(mine, 0o700); err != nil {
				t.Error(err)
			}
			for n := range 50 {
				if err := c.Set(t.Context(), me, mine, vm.VMHandles{PID: n + 1}); err != nil {
					t.Error(err)
				}
				c.Get(me)
				Read(me, mine)
				if n%10 == 0 {
					_ = c.Clear(t.Context(), me, mine)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"vm":"0123456789ab","pid":42}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h := parse(id, b); h.PID < 0 {
			t.Errorf("negative pid from %q", b)
		}
	})
}
