package dmsnap

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/vm"
)

func TestParseStatus(t *testing.T) {
	for in, want := range map[string]disk.Health{
		"0 65536 snapshot 16/81920 16":       {State: disk.StoreOK, Used: 16 * 512, Total: 81920 * 512},
		"0 65536 snapshot 81920/81920 400":   {State: disk.StoreOK, Used: 81920 * 512, Total: 81920 * 512},
		"0 65536 snapshot Invalid":           {State: disk.StoreInvalid},
		"0 65536 snapshot Overflow":          {State: disk.StoreOverflow},
		"0 65536 snapshot Merge failed":      {State: disk.StoreInvalid},
		"":                                   {},
		"0 65536 error":                      {},
		"0 65536 snapshot Unknown":           {},
		"0 65536 snapshot 5/4 0":             {},
		"0 65536 linear 7:0 16/81920 snap":   {},
		"0 65536 snapshot -1/81920 metadata": {},
	} {
		got, err := parseStatus(in)
		if got != want || (err != nil) != (want == disk.Health{}) {
			t.Errorf("%q: %+v %v, want %+v", in, got, err, want)
		}
	}
}

func TestStoreSize(t *testing.T) {
	for _, c := range []struct{ size, least int64 }{
		{1, 1 + 1 + 1}, {chunk, 1 + 1 + 1}, {chunk + 1, 1 + 1 + 2},
		{255 * chunk, 1 + 1 + 255}, {256 * chunk, 1 + 2 + 256}, {8 << 30, 1 + 8193 + 2<<20},
	} {
		got := storeSize(c.size)
		if got%chunk != 0 || got < (c.least+1)*chunk || got > (c.least+32)*chunk {
			t.Errorf("store for %d bytes has %d chunks, wants a few more than %d", c.size, got/chunk, c.least)
		}
	}
}

func newStore(t *testing.T, s stamp) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeStore(path, s); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStore(t *testing.T) {
	want := stampOf("/images/abc/root.ext4", 8<<30)
	if moved := stampOf("/elsewhere/abc/root.ext4", 8<<30); moved != want {
		t.Errorf("an image that was moved is another one: %v, %v", moved, want)
	}
	path := newStore(t, want)
	if got, valid, err := readStore(path); got != want || !valid || err != nil {
		t.Errorf("read back %v %v %v", got, valid, err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != storeSize(8<<30) {
		t.Errorf("%v %v", st, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		h         header
		valid, ok bool
	}{
		{header{storeMagic, 1, 1, 8}, true, true},
		{header{storeMagic, 0, 1, 8}, false, true},
		{header{storeMagic, 1, 2, 8}, false, false},
		{header{storeMagic, 1, 1, 16}, false, false},
		{header{1, 1, 1, 8}, false, false},
	} {
		b, err := binary.Append(nil, binary.LittleEndian, c.h)
		if err == nil {
			_, err = f.WriteAt(b, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, valid, err := readStore(path); valid != c.valid || (err == nil) != c.ok {
			t.Errorf("%+v: valid %v, %v", c.h, valid, err)
		}
		err = check(path, want)
		if (err == nil) != c.valid || err != nil && (vm.CodeOf(err) != vm.CodeCorrupt || vm.HintOf(err) == "") {
			t.Errorf("%+v: %v", c.h, err)
		}
	}
	if err := check(path, stampOf("/images/def/root.ext4", 8<<30)); vm.CodeOf(err) != vm.CodeCorrupt {
		t.Errorf("another image: %v", err)
	}
	if _, err := (stamp{strings.Repeat("x", chunk), 1}).bytes(); err == nil {
		t.Error("a name longer than the stamp was taken")
	}
}

func TestRevive(t *testing.T) {
	path := newStore(t, stampOf("/images/abc/root.ext4", 1<<20))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, _ := binary.Append(nil, binary.LittleEndian, header{storeMagic, 0, 1, 8})
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := revive(path); err != nil {
		t.Fatal(err)
	}
	if _, valid, err := readStore(path); !valid || err != nil {
		t.Errorf("%v %v", valid, err)
	}
}

func FuzzParseStore(f *testing.F) {
	s := stampOf("/images/abc/root.ext4", chunk)
	tail, err := s.bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tail, int64(3*chunk))
	f.Add([]byte(stampMagic), int64(0))
	f.Fuzz(func(t *testing.T, tail []byte, pad int64) {
		pad = min(max(pad, 0), 1<<20)
		b := append(make([]byte, pad), tail...)
		s, _, err := parseStore(bytes.NewReader(b), int64(len(b)))
		if err == nil && storeSize(s.size) != int64(len(b)) {
			t.Errorf("accepted %+v in %d bytes", s, len(b))
		}
	})
}
