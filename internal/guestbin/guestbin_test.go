package guestbin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"strings"
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
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write([]byte("elf")); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte("elf")))
	with := func(sum string, packed []byte) fstest.MapFS {
		return fstest.MapFS{"bin/banger-guest.gz": {Data: packed}, "bin/banger-guest.sha256": {Data: []byte(sum + "  -\n")}}
	}
	whole := with(digest, zipped.Bytes())
	if k, err := key(whole); err != nil || k != digest {
		t.Errorf("key = %q, %v", k, err)
	}
	if b, err := read(whole); err != nil || string(b) != "elf" {
		t.Errorf("read = %q, %v", b, err)
	}
	for what, from := range map[string]fstest.MapFS{
		"another build's digest": with(strings.Repeat("0", 64), zipped.Bytes()),
		"half a file":            with(digest, zipped.Bytes()[:zipped.Len()-6]),
		"no gzip":                with(digest, []byte("elf")),
	} {
		if b, err := read(from); vm.CodeOf(err) != vm.CodeCorrupt {
			t.Errorf("%s: read = %q, %v", what, b, err)
		}
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
