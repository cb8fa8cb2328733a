package guestbin

import (
	"bytes"
	"debug/elf"
	"testing"
	"testing/fstest"

	"banger/internal/testhost"
	"banger/internal/vm"
)

func TestReadWithoutGuest(t *testing.T) {
	_, err := read(fstest.MapFS{"bin/README.md": {}})
	if vm.CodeOf(err) != vm.CodeMissing || vm.HintOf(err) == "" {
		t.Fatalf("read without a guest = %v (code %s, hint %q), want code missing with a hint", err, vm.CodeOf(err), vm.HintOf(err))
	}
}

func TestReadWithGuest(t *testing.T) {
	b, err := read(fstest.MapFS{"bin/banger-guest": {Data: []byte("elf")}})
	if err != nil || string(b) != "elf" {
		t.Fatalf("read = %q, %v", b, err)
	}
}

// TestBinaryIsStatic looks at the real thing where make has built it: an interpreter would not exist in the guest.
func TestBinaryIsStatic(t *testing.T) {
	testhost.Need(t, testhost.Guest)
	b, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("banger-guest has a %v segment: it must be static", p.Type)
		}
	}
}
