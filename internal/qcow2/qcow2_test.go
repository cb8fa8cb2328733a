package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testhost"
)

func TestReadBackWhatWasWritten(t *testing.T) {
	for _, c := range []struct {
		base string
		size int64
		ok   bool
	}{
		{"/images/root.ext4", 8 << 30, true},
		{strings.Repeat("a", maxBackingName), 1, true},
		{strings.Repeat("a", maxBackingName+1), 1, false},
		{"", 1, false},
		{"/b", 0, false},
		{"/b", -1, false},
		{"/b", maxL1 / 8 << (clusterBits + clusterBits - 3), true},
		{"/b", maxL1/8<<(clusterBits+clusterBits-3) + 1, false},
	} {
		var f memFile
		err := WriteEmpty(&f, c.base, c.size)
		if (err == nil) != c.ok {
			t.Errorf("write (%d byte name, size %d): %v", len(c.base), c.size, err)
		}
		if err != nil {
			continue
		}
		i, err := Open(bytes.NewReader(f.b))
		if err != nil || i.Backing != c.base || i.Size != c.size {
			t.Errorf("read back %+v %v, want %q %d", i, err, c.base, c.size)
		}
	}
}

// memFile is an io.WriterAt in memory.
type memFile struct{ b []byte }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

// TestQEMUsFiles reads back what qemu-img makes of one disk in all the ways that it can be stored in.
func TestQEMUsFiles(t *testing.T) {
	testhost.Need(t, testhost.QEMU)
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	disk := make([]byte, 9<<20+512)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := 1 << 20; i < 2<<20; i++ {
		disk[i] = byte(noise.Uint32())
	}
	copy(disk[5<<20:], bytes.Repeat([]byte("text that packs well "), 40000))
	copy(disk[len(disk)-4:], "last")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"plain": nil, "packed": {"-c"}, "version 2": {"-o", "compat=0.10"}, "version 2, packed": {"-c", "-o", "compat=0.10"},
		"small clusters": {"-o", "cluster_size=512"}, "large clusters, packed": {"-c", "-o", "cluster_size=2M"}, "zstd": {"-c", "-o", "compression_type=zstd"},
	} {
		file := filepath.Join(dir, name)
		run(t, append(append([]string{"qemu-img", "convert", "-O", "qcow2"}, args...), raw, file)...)
		got := contentOf(t, file, nil)
		if !bytes.Equal(got, disk) {
			t.Errorf("%s: other content", name)
		}
	}
	over := filepath.Join(dir, "over")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, over)
	run(t, "qemu-io", "-c", "write -P 7 65536 1000", "-c", "write -z 5M 64k", over)
	want := bytes.Clone(disk)
	copy(want[65536:], bytes.Repeat([]byte{7}, 1000))
	clear(want[5<<20 : 5<<20+64<<10])
	if !bytes.Equal(contentOf(t, over, disk), want) {
		t.Error("over a backing file: other content")
	}
	extended := filepath.Join(dir, "extended")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", extended, "1M")
	f, err := os.Open(extended)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := Open(f); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("subclusters: %v", err)
	}
}

// contentOf is all of a disk, read both ways: over what is there already, and, where there is nothing, in pieces.
func contentOf(t *testing.T, file string, over []byte) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	i, err := Open(f)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	m := memFile{make([]byte, i.Size)}
	copy(m.b, over)
	if err := i.CopyTo(t.Context(), &m); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if over == nil {
		p := make([]byte, i.Size+1)
		if n, err := i.ReadAt(p, 0); int64(n) != i.Size || err == nil || !bytes.Equal(p[:n], m.b) {
			t.Errorf("%s: read otherwise: %d bytes, %v", file, n, err)
		}
		piece := make([]byte, 1000)
		if _, err := i.ReadAt(piece, 1<<20-500); err != nil || !bytes.Equal(piece, m.b[1<<20-500:][:1000]) {
			t.Errorf("%s: a piece reads otherwise: %v", file, err)
		}
	}
	return m.b
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// FuzzOpen: whatever a file says, nothing but an error comes of it, and no more memory is taken than it has tables.
func FuzzOpen(f *testing.F) {
	var good memFile
	if err := WriteEmpty(&good, "/images/root.ext4", 1<<20); err != nil {
		f.Fatal(err)
	}
	f.Add(good.b[:512])
	f.Add(good.b)
	f.Add([]byte("QFI\xfb"))
	packed := bytes.Clone(good.b)
	binary.BigEndian.PutUint64(packed[3*cluster:], 2*cluster)
	binary.BigEndian.PutUint64(packed[2*cluster:], packedFlag|1<<60|100)
	f.Add(packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(i.Backing) > maxBackingName || i.Size <= 0 {
			t.Errorf("accepted %d byte name, size %d", len(i.Backing), i.Size)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = i.CopyTo(ctx, nil)
		_, _ = i.ReadAt(make([]byte, 4096), 0)
		_, _ = i.ReadAt(make([]byte, 10), i.Size-5)
	})
}
