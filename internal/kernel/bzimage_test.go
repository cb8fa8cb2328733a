package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestExtractVmlinux(t *testing.T) {
	want := testVmlinux(elfOpts{})
	for _, format := range slices.Sorted(maps.Keys(compressors)) {
		t.Run(format, func(t *testing.T) {
			image := want // an ELF file is taken as it is
			if format != "none" {
				image = testBzImage(t, format, want)
			}
			var got bytes.Buffer
			if err := extractVmlinux(&got, bytes.NewReader(image), int64(len(image))); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Fatalf("got %d bytes that differ from the %d packed", got.Len(), len(want))
			}
		})
	}
}

func TestExtractVmlinuxRefuses(t *testing.T) {
	good := testBzImage(t, "zstd", testVmlinux(elfOpts{}))
	for name, c := range map[string]struct {
		break_ func(b []byte) []byte
		want   string
	}{
		"empty":          {func([]byte) []byte { return nil }, "too short"},
		"text":           {func([]byte) []byte { return bytes.Repeat([]byte("hello "), 500) }, "neither an ELF file nor a bzImage"},
		"no magic":       {func(b []byte) []byte { b[0x202] = 'X'; return b }, "neither an ELF file nor a bzImage"},
		"old protocol":   {func(b []byte) []byte { b[0x206], b[0x207] = 7, 2; return b }, "boot protocol 2.07"},
		"payload beyond": {func(b []byte) []byte { return b[:len(b)-100] }, "does not lie in"},
		"payload length": {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[0x24c:], 1<<32-1); return b }, "does not lie in"},
		"payload empty":  {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[0x24c:], 4); return b }, "does not lie in"},
		"unknown format": {func(b []byte) []byte { copy(b[4*512+100:], "zzzzzz"); return b }, "no known format"},
		"corrupt":        {func(b []byte) []byte { copy(b[4*512+200:], make([]byte, 3000)); return b }, "decompress payload"},
		"huge claim": {func(b []byte) []byte {
			end := 4*512 + 100 + binary.LittleEndian.Uint32(b[0x24c:])
			binary.LittleEndian.PutUint32(b[end-4:], 1<<31)
			return b
		}, "claims 2147483648 bytes"},
		"short of claim": {func(b []byte) []byte {
			end := 4*512 + 100 + binary.LittleEndian.Uint32(b[0x24c:])
			binary.LittleEndian.PutUint32(b[end-4:], 1<<20)
			return b
		}, "decompress payload"},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.break_(bytes.Clone(good))
			err := extractVmlinux(&bytes.Buffer{}, bytes.NewReader(b), int64(len(b)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestCheckVmlinux(t *testing.T) {
	for name, c := range map[string]struct {
		opts elfOpts
		want string
	}{
		"good":      {elfOpts{}, ""},
		"arm":       {elfOpts{machine: elf.EM_AARCH64}, "EM_AARCH64"},
		"no note":   {elfOpts{noNote: true}, "no PVH entry point"},
		"no loads":  {elfOpts{noLoad: true}, "nothing to load"},
		"all wrong": {elfOpts{noLoad: true, noNote: true}, "nothing to load"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkVmlinux(bytes.NewReader(testVmlinux(c.opts)))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzExtractVmlinux(f *testing.F) {
	// A small kernel: the header is what is to be fuzzed, not the decompressors.
	for _, format := range []string{"gzip", "zstd", "xz", "lz4"} {
		f.Add(testBzImage(f, format, []byte("\x7fELF small")))
	}
	f.Add(testVmlinux(elfOpts{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		if err := extractVmlinux(&out, bytes.NewReader(b), int64(len(b))); err == nil && out.Len() > maxVmlinux {
			t.Fatalf("%d bytes of output", out.Len())
		}
		if p, err := findPayload(b, int64(len(b))); err == nil && (p.offset < 0 || p.length < 0 || p.offset+p.length > int64(len(b))) {
			t.Fatalf("payload %+v in %d bytes", p, len(b))
		}
	})
}

func FuzzCheckVmlinux(f *testing.F) {
	f.Add(testVmlinux(elfOpts{}))
	f.Add(testVmlinux(elfOpts{noNote: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkVmlinux(bytes.NewReader(b)); err == nil && !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
			t.Fatal("took what is not ELF")
		}
		hasNote(b, "Xen", notePVH)
	})
}
