package sparse

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/iotest"
)

func TestCopy(t *testing.T) {
	x := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	z := func(n int) []byte { return make([]byte, n) }
	for name, c := range map[string]struct {
		parts [][]byte
		most  int64 // bytes that the file may take; -1 = all that it has
	}{
		"empty":                 {nil, 0},
		"small":                 {[][]byte{x(3)}, -1},
		"small zeros":           {[][]byte{z(100)}, -1},
		"one block":             {[][]byte{x(block)}, -1},
		"zeros at the end":      {[][]byte{x(10), z(10*block - 10)}, 2 * block},
		"nothing but zeros":     {[][]byte{z(1 << 20)}, 0},
		"an odd number of them": {[][]byte{z(1<<20 + 1)}, block},
		"zeros in the middle":   {[][]byte{x(block), z(16 * block), x(1)}, 3 * block},
		"a gap within blocks":   {[][]byte{x(1), z(block), x(block - 1)}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			want := bytes.Join(c.parts, nil)
			for _, r := range []io.Reader{bytes.NewReader(want), iotest.HalfReader(bytes.NewReader(want)), iotest.DataErrReader(bytes.NewReader(want))} {
				path := filepath.Join(t.TempDir(), "f")
				f, err := os.Create(path)
				if err != nil {
					t.Fatal(err)
				}
				n, err := Copy(f, r)
				if err = errors.Join(err, f.Sync(), f.Close()); err != nil || n != int64(len(want)) {
					t.Errorf("%d bytes of %d, %v", n, len(want), err)
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes are there, or others: %v", len(got), err)
				}
				fi, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if takes := fi.Sys().(*syscall.Stat_t).Blocks * 512; c.most >= 0 && takes > c.most {
					t.Errorf("it takes %d bytes of the disk, and should at most %d", takes, c.most)
				}
			}
		})
	}
}

// A stream that breaks off is no file that ends.
func TestCopyBrokenOff(t *testing.T) {
	for _, broken := range []error{io.ErrUnexpectedEOF, io.ErrClosedPipe} {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(f, io.MultiReader(bytes.NewReader([]byte("half")), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("%v, want %v", err, broken)
		}
		_ = f.Close()
	}
	f, err := os.Open(os.DevNull) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := Copy(f, bytes.NewReader([]byte("x"))); err == nil {
		t.Error("an error of the file's is lost")
	}
}
