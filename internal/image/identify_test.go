package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"banger/internal/qcow2"
	"banger/internal/vm"
)

// tarOf is a tar of files with these names, each holding its name; one that ends with "/" is a directory.
func tarOf(names ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h, body := &tar.Header{Name: n, Mode: 0o755, Size: int64(len(n))}, n
		if strings.HasSuffix(n, "/") {
			h, body = &tar.Header{Name: n, Typeflag: tar.TypeDir, Mode: 0o755}, ""
		}
		if err := errors.Join(w.WriteHeader(h), second(w.Write([]byte(body)))); err != nil {
			panic(err) // a wrong test
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// packed is b, compressed.
func packed(open func(io.Writer) (io.WriteCloser, error), b []byte) []byte {
	var out bytes.Buffer
	w, err := open(&out)
	if err := errors.Join(err, second(w.Write(b)), w.Close()); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func gz(w io.Writer) (io.WriteCloser, error)  { return gzip.NewWriter(w), nil }
func zst(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }

// superblock is a disk of size bytes, as far as a look at its superblock goes.
func superblock(size, claims int64) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b[1024+4:], uint32(claims/4096))
	binary.LittleEndian.PutUint32(b[1024+0x18:], 2)
	binary.LittleEndian.PutUint16(b[1024+0x38:], 0xef53)
	return b
}

func partitions(mark string, at int) []byte {
	b := make([]byte, 1<<20)
	copy(b[at:], mark)
	b[510], b[511] = 0x55, 0xaa
	return b
}

var rootTar = tarOf("./", "./etc/", "./etc/os-release", "./bin/sh")

func TestIdentify(t *testing.T) {
	overlay := filepath.Join(t.TempDir(), "overlay")
	f, err := os.Create(overlay)
	if err := errors.Join(err, qcow2.WriteEmpty(f, "/etc/shadow", 1<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	standing, err := os.ReadFile(overlay)
	if err != nil {
		t.Fatal(err)
	}
	alone := bytes.Clone(standing)
	clear(alone[8:20]) // without its backing file: all zeros
	for name, c := range map[string]struct {
		content []byte
		kind    kind
		words   string // of the error
	}{
		"tar":                     {rootTar, kindTar, ""},
		"a tar called anything":   {tarOf("BZh/", "usr/", "usr/bin/sh"), kindTar, ""},
		"docker export's":         {tarOf(".dockerenv", "bin/", "etc/"), kindTar, ""},
		"gzip":                    {packed(gz, rootTar), kindTar, ""},
		"zstd":                    {packed(zst, rootTar), kindTar, ""},
		"ext4":                    {superblock(1<<20, 1<<20), kindExt4, ""},
		"empty":                   {nil, "", "it is empty"},
		"text":                    {[]byte("hello\n"), "", "of no kind that is known"},
		"zeros":                   {make([]byte, 1<<20), "", "of no kind that is known"},
		"docker save's":           {tarOf("manifest.json", "blobs/", "oci-layout"), "", "docker export of a container"},
		"a directory of one":      {tarOf("rootfs/", "rootfs/bin/", "rootfs/bin/sh"), "", `at its top, but ["rootfs"]`},
		"a tar cut off":           {rootTar[:1200], "", "damaged or cut off"},
		"gzip of text":            {packed(gz, []byte("hello\n")), "", "no tar; decompress"},
		"gzip of nothing":         {packed(gz, nil), "", "no tar; decompress"},
		"gzip of a disk":          {packed(gz, superblock(1<<20, 1<<20)), "", "no tar; decompress"},
		"gzip's first bytes":      {packed(gz, rootTar)[:8], "", "cannot be read"},
		"ext4 cut off":            {superblock(1<<20, 2<<20), "", "it is cut off: it has 1048576 bytes, its file system 2097152"},
		"ext4 of absurd size":     {superblock(1<<20, 0), "", "damaged: 0 blocks"},
		"MBR":                     {partitions("\x83", 446+4), "", "whole disk with partitions; import the partition"},
		"GPT":                     {partitions("EFI PART", 512), "", "whole disk with partitions"},
		"qcow2 of nothing known":  {alone, "", "of no kind that is known"},
		"qcow2 on another file":   {standing, "", "it stands on another file, /etc/shadow; make one that stands alone"},
		"qcow2's first bytes":     {standing[:50], "", "read qcow2 header"},
		"qcow2 of a next version": {append([]byte("QFI\xfb\x00\x00\x00\x09"), standing[8:]...), "", "qcow2 version 9"},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := identify(path)
		if c.words == "" && (err != nil || got != c.kind) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if c.words != "" && (vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error()+"; "+vm.HintOf(err), c.words) || vm.HintOf(err) == "" && strings.Contains(c.words, ";")) {
			t.Errorf("%s: %v (code %s, hint %q), want %q", name, err, vm.CodeOf(err), vm.HintOf(err), c.words)
		}
	}
	for path, code := range map[string]vm.Code{t.TempDir(): vm.CodeInvalid, "/dev/null": vm.CodeInvalid, "/none": vm.CodeNotFound} {
		if _, err := identify(path); vm.CodeOf(err) != code {
			t.Errorf("%s: %v (code %s), want code %s", path, err, vm.CodeOf(err), code)
		}
	}
}

func TestNameFor(t *testing.T) {
	for source, want := range map[string]string{"/x/alpine.tar": "alpine", "a.tar.gz": "a", "b.tgz": "b", "disk.ext4.zst": "disk", "My Root": "My Root", ".tar": ""} {
		if got := nameFor(source); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}
