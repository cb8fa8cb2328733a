package kernel

// Makers of small kernels, modules and packages: whole enough for every step, none boots.

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

const testRelease = "6.1.2-test"

type elfOpts struct {
	machine elf.Machine
	noLoad  bool
	noNote  bool
}

// testVmlinux is an ELF with one segment to load and Xen's note, followed by a banner and incompressible bytes.
func testVmlinux(o elfOpts) []byte {
	if o.machine == 0 {
		o.machine = elf.EM_X86_64
	}
	note := func(name string, kind uint32, desc []byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
		b = binary.LittleEndian.AppendUint32(b, kind)
		b = append(b, append([]byte(name), make([]byte, 4-len(name)%4)...)...)
		return append(b, append(desc, make([]byte, -len(desc)&3)...)...)
	}
	notes := note("GNU", 3, []byte("0123456789"))
	if !o.noNote {
		notes = append(notes, note("Xen", notePVH, make([]byte, 8))...)
	}
	body := append([]byte("Linux version %s\x00Linux version "+testRelease+" (me@here) #1 SMP\n\x00"), noise(20_000)...)
	const start = 64 + 2*56
	progs := []elf.Prog64{{Type: uint32(elf.PT_NOTE), Off: start, Filesz: uint64(len(notes))}}
	if !o.noLoad {
		progs = append(progs, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: start + uint64(len(notes)), Filesz: uint64(len(body))})
	}
	var b bytes.Buffer
	h := elf.Header64{
		Ident:   [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(o.machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs)), Shentsize: 64,
	}
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, progs)
	b.Write(make([]byte, start-b.Len()))
	b.Write(notes)
	b.Write(body)
	return b.Bytes()
}

// noise is the same every time and does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

type nopClose struct{ io.Writer }

func (nopClose) Close() error { return nil }

// compressors by name, of every format that Go can write.
var compressors = map[string]func(io.Writer) (io.WriteCloser, error){
	"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	"lzma": func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) },
	"lz4": func(w io.Writer) (io.WriteCloser, error) {
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.LegacyOption(true))
	},
	"none": func(w io.Writer) (io.WriteCloser, error) { return nopClose{w}, nil },
}

func squeeze(t testing.TB, format string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := compressors[format](&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// testBzImage packs vmlinux the way the kernel's build does.
func testBzImage(t testing.TB, format string, vmlinux []byte) []byte {
	t.Helper()
	data := squeeze(t, format, vmlinux)
	if format != "gzip" { // whose own trailer is the size
		data = binary.LittleEndian.AppendUint32(data, uint32(len(vmlinux)))
	}
	const setup, skip = 3, 100
	b := make([]byte, (setup+1)*512+skip)
	b[0x1f1] = setup
	b[0x1fe], b[0x1ff] = 0x55, 0xaa
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x248:], skip)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(data)))
	return append(append(b, data...), "what follows the payload"...)
}

// testFiles is a kernel package's content; modules have no symbols, so depmod finds no dependencies.
func testFiles(t testing.TB) map[string][]byte {
	m := "./usr/lib/modules/" + testRelease + "/"
	return map[string][]byte{
		"./boot/vmlinuz-" + testRelease:                      testBzImage(t, "zstd", testVmlinux(elfOpts{})),
		"./boot/config-" + testRelease:                       []byte("CONFIG_PVH=y\n"),
		m + "modules.builtin":                                []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/char/virtio_console.ko\n"),
		m + "modules.builtin.modinfo":                        []byte("ext4.license=GPL\x00"),
		m + "modules.order":                                  []byte("kernel/drivers/block/virtio_blk.ko\n"),
		m + "modules.dep":                                    []byte("stale\n"),
		m + "kernel/drivers/virtio/virtio_mmio.ko.xz":        squeeze(t, "xz", []byte("mmio")),
		m + "kernel/drivers/block/virtio_blk.ko":             []byte("blk"),
		m + "kernel/drivers/net/virtio_net.ko.zst":           squeeze(t, "zstd", []byte("net")),
		m + "kernel/net/vsock/vmw_vsock_virtio_transport.ko": []byte("vsock"),
		m + "kernel/fs/overlayfs/overlay.ko.gz":              squeeze(t, "gzip", []byte("overlay")),
	}
}

const testControl = "Package: linux-image-" + testRelease + "\nVersion: 6.1.2-3\nArchitecture: amd64\nDepends: kmod, linux-base (>= 4.3~)\nDescription: a kernel\n that is long\n"

func testTar(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Uid: 1000, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "./usr/lib/modules/" + testRelease + "/build", Linkname: "/usr/src/x", Typeflag: tar.TypeSymlink}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func testDeb(t testing.TB, format, control string, files map[string][]byte) []byte {
	t.Helper()
	suffix := map[string]string{"none": "", "gzip": ".gz", "xz": ".xz", "zstd": ".zst"}[format]
	var b bytes.Buffer
	b.WriteString(arMagic)
	member := func(name string, content []byte) {
		_, _ = fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(content))
		b.Write(content)
		b.WriteString("\n"[:len(content)&1])
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar"+suffix, squeeze(t, format, testTar(t, map[string][]byte{"./control": []byte(control)})))
	member("data.tar"+suffix, squeeze(t, format, testTar(t, files)))
	return b.Bytes()
}

// writeTemp puts content into a new file of that name.
func writeTemp(t testing.TB, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
