package dmsnap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/vm"
)

// storeOn is an overlay whose store is written here as the kernel would: chunks of the image in the order in which a guest wrote
// them, with content.
func storeOn(t *testing.T, size int64, written ...int64) (disk.Overlay, []byte) {
	t.Helper()
	dir := t.TempDir()
	o := disk.Overlay{ID: "000000000001", Base: filepath.Join(dir, "image", "root.ext4"), Path: filepath.Join(dir, "system")}
	want := bytes.Repeat([]byte("base"), int(size/4))
	must(t, errors.Join(os.Mkdir(filepath.Dir(o.Base), 0o700), os.WriteFile(o.Base, want, 0o600), os.WriteFile(o.Path, nil, 0o600), writeStore(o.Path, stampOf(o.Base, size))))
	f, err := os.OpenFile(o.Path, os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = f.Close() }()
	put := func(at int64, b []byte) {
		_, err := f.WriteAt(b, at)
		must(t, err)
	}
	if len(written) > 0 {
		h, err := binary.Append(nil, binary.LittleEndian, header{storeMagic, 1, storeVersion, chunkSectors})
		must(t, err)
		put(0, h)
	}
	for n, old := range written {
		area := int64(n / perArea)
		meta := 1 + area*(1+perArea)
		here := meta + 1 + int64(n%perArea)
		put(meta*chunk+int64(n%perArea)*16, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(old)), uint64(here)))
		content := bytes.Repeat([]byte{byte(n), byte(n >> 8), 'n', '!'}, chunk/4)
		put(here*chunk, content)
		copy(want[old*chunk:], content)
	}
	return o, want
}

func flat(t *testing.T, o disk.Overlay) ([]byte, error) {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "flat")
	must(t, os.WriteFile(dst, nil, 0o600))
	if err := New().Flatten(t.Context(), o, dst); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(dst)
	must(t, err)
	return b, nil
}

func TestFlattenAStore(t *testing.T) {
	var full []int64
	for n := range int64(2*perArea + 3) {
		full = append(full, n*7%(2*perArea+3)) // prime to it: each once
	}
	for name, written := range map[string][]int64{"unused": nil, "one": {5}, "an area": full[:perArea], "an area and one": full[:perArea+1], "all": full} {
		o, want := storeOn(t, (2*perArea+3)*chunk, written...)
		if got, err := flat(t, o); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other content, %v", name, err)
		}
	}
}

func TestFlattenADamagedStore(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(o disk.Overlay) error
		code  vm.Code
		words string
	}{
		"not valid":  {func(o disk.Overlay) error { return patch(o.Path, validOffset, 0, 0, 0, 0) }, vm.CodeCorrupt, "invalid"},
		"no stamp":   {func(o disk.Overlay) error { return os.Truncate(o.Path, 4*chunk) }, vm.CodeCorrupt, "check overlay"},
		"past it":    {func(o disk.Overlay) error { return patch(o.Path, chunk, 0xff, 0xff) }, vm.CodeInternal, "chunk 65535"},
		"absurd":     {func(o disk.Overlay) error { return patch(o.Path, chunk+14, 0xff, 0xff) }, vm.CodeInternal, "exceptions are damaged"},
		"not there":  {func(o disk.Overlay) error { return os.Remove(o.Path) }, vm.CodeNotFound, "never started"},
		"image gone": {func(o disk.Overlay) error { return os.Remove(o.Base) }, vm.CodeNotFound, "is gone"},
	} {
		o, _ := storeOn(t, 8*chunk, 2, 3)
		must(t, c.do(o))
		if _, err := flat(t, o); vm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v (code %s), want code %s with %q", name, err, vm.CodeOf(err), c.code, c.words)
		}
	}
}

func patch(path string, at int64, b ...byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}
