package binary

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"banger/internal/vm"
)

// Bounds of what is read: a release has 30 MB, its programs 3 MB each, and debug builds of them 60 MB.
const (
	maxArchive  = 512 << 20
	maxProgram  = 128 << 20
	maxUnpacked = 2 << 30
	maxSums     = 1 << 20
)

// item is one file as it came: the name its origin gave it, and its SHA-256 in hex.
type item struct{ name, sum string }

// goods are the two programs, in a directory of ours under their own names.
type goods struct {
	archive     item // they came in; zero = in none
	vmm, jailer item
	inner       sums // what the archive says about its own files: that they are whole, not where they come from
}

// unpacker takes the programs out of whatever they came in. It writes two names and no others, whatever an archive says.
type unpacker struct {
	ctx context.Context
	out string
	goods
}

// unpack fills out from path: a release's archive, a zip such as a wheel, a directory, or a program with its jailer beside
// it. name is what its origin calls it. What it is, its content tells.
func unpack(ctx context.Context, src, name, out string) (goods, error) {
	u := &unpacker{ctx: ctx, out: out}
	if err := u.open(src, name); err != nil {
		return goods{}, err
	}
	for _, of := range []struct {
		item
		program string
	}{{u.vmm, progVMM}, {u.jailer, progJailer}} {
		if of.name == "" {
			return goods{}, vm.Errorf(vm.CodeInvalid, "%s has no %s", name, of.program).
				WithHint("a release's archive has both, under any path; beside a program its jailer is looked for")
		}
		if err := checkELF(filepath.Join(out, of.program), of.name); err != nil {
			return goods{}, err
		}
	}
	return u.goods, nil
}

func (u *unpacker) open(src, name string) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return u.directory(src, "")
	}
	if !st.Mode().IsRegular() {
		return vm.Errorf(vm.CodeInvalid, "%s is neither a file nor a directory", name)
	}
	if st.Size() > maxArchive {
		return vm.Errorf(vm.CodeInvalid, "%s has %d MiB, more than any release", name, st.Size()>>20)
	}
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		err = u.tarball(f)
	case bytes.Equal(magic, []byte("PK\x03\x04")):
		err = u.zip(f, st.Size())
	case bytes.Equal(magic, []byte("\x7fELF")):
		return u.program(src)
	default:
		return vm.Errorf(vm.CodeInvalid, "%s is neither a .tgz nor a .zip nor a program", name)
	}
	if err != nil {
		return u.blame(name, err)
	}
	u.archive.name = name
	u.archive.sum, err = sumOf(src)
	return err
}

// blame holds an archive to be damaged, unless it is our disk or the caller's leaving.
func (u *unpacker) blame(name string, err error) error {
	var onHost *os.PathError
	if u.ctx.Err() != nil || errors.As(err, &onHost) {
		return err
	}
	return vm.Errorf(vm.CodeInvalid, "unpack %s: %w", name, err)
}

func (u *unpacker) tarball(f io.Reader) error {
	z, err := gzip.NewReader(reader{u.ctx, f})
	if err != nil {
		return err
	}
	bounded := &io.LimitedReader{R: z, N: maxUnpacked}
	for t := tar.NewReader(bounded); ; {
		h, err := t.Next()
		if bounded.N <= 0 {
			return fmt.Errorf("it unpacks to more than %d MiB", maxUnpacked>>20)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := u.take(h.Name, h.Typeflag == tar.TypeReg, t); err != nil {
			return err
		}
	}
}

func (u *unpacker) zip(f io.ReaderAt, size int64) error {
	z, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	for _, entry := range z.File {
		if kindOf(entry.Name) == "" {
			continue
		}
		r, err := entry.Open()
		if err != nil {
			return err
		}
		err = u.take(entry.Name, entry.Mode().IsRegular(), reader{u.ctx, r})
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// directory takes what lies in dir, or only the file of that name.
func (u *unpacker) directory(dir, only string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if only != "" && e.Name() != only || kindOf(e.Name()) == "" || kindOf(e.Name()) == fileSums {
			continue
		}
		if err := u.file(filepath.Join(dir, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// program takes one program, and the jailer beside it: of the same version where the names tell one.
func (u *unpacker) program(src string) error {
	dir, name := filepath.Split(src)
	if kindOf(name) == progJailer {
		return vm.Errorf(vm.CodeInvalid, "%s is the jailer", src).WithHint("name the %s: the jailer is looked for beside it", progVMM)
	}
	if err := u.file(src, progVMM); err != nil {
		return err
	}
	u.vmm.name = name
	for _, beside := range []string{strings.Replace(name, progVMM, progJailer, 1), progJailer} {
		if beside != name && isFile(filepath.Join(dir, beside)) {
			return u.directory(dir, beside)
		}
	}
	return nil
}

func (u *unpacker) file(src, as string) error {
	st, err := os.Stat(src) // a link is as good: the user has named the place
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return vm.Errorf(vm.CodeInvalid, "%s is not a file", src)
	}
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return u.take(as, true, reader{u.ctx, f})
}

const fileSums = "SHA256SUMS"

// The names of a release: firecracker-v1.12.1-x86_64, beside it ….debug, which is none of ours.
var programName = regexp.MustCompile(`^(firecracker|jailer)(-v?[0-9]+(\.[0-9]+)*)?(-x86_64)?$`)

// kindOf says which of the things we look for a name in an archive is; empty = none.
func kindOf(name string) string {
	base := path.Base(name)
	if base == fileSums {
		return fileSums
	}
	if m := programName.FindStringSubmatch(base); m != nil {
		return m[1]
	}
	return ""
}

// take reads one entry, if it is one of those that are looked for.
func (u *unpacker) take(name string, regular bool, r io.Reader) (err error) {
	kind := kindOf(name)
	if kind == "" || kind == fileSums && !regular {
		return nil
	}
	if !regular {
		return vm.Errorf(vm.CodeInvalid, "%s is not a file", name)
	}
	if kind == fileSums {
		u.inner, err = readSums(r)
		return err
	}
	i := &u.vmm
	if kind == progJailer {
		i = &u.jailer
	}
	if i.name != "" {
		return vm.Errorf(vm.CodeInvalid, "there are two: %s and %s", i.name, name).WithHint("give one of them to --from")
	}
	i.name = name
	i.sum, err = writeProgram(filepath.Join(u.out, kind), name, r)
	return err
}
