package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoClone says that two files cannot share blocks: their file system cannot do it, or they lie on different ones.
var ErrNoClone = errors.New("file system has no reflinks")

// Clone makes dst, which must exist, share all of src's blocks (FICLONE) until one of them is written. ErrNoClone when
// that is impossible here.
func Clone(dst, src string) error {
	return pair(dst, src, func(out, in *os.File) error {
		err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EXDEV):
			return fmt.Errorf("clone %s to %s: %w: they lie on different ones", src, dst, ErrNoClone)
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return fmt.Errorf("clone %s to %s: %w (%w)", src, dst, ErrNoClone, err)
		}
		return fmt.Errorf("clone %s to %s: %w", src, dst, err)
	})
}

// Copy makes dst, which must exist and be empty, the same as src: with shared blocks where that can be, else with its own, and
// src's holes.
func Copy(ctx context.Context, dst, src string) error {
	if err := Clone(dst, src); !errors.Is(err, ErrNoClone) {
		return err
	}
	return CopySparse(ctx, dst, src)
}

// sumStep is in what pieces Sum looks at a file.
const sumStep = 64 << 10

// Sum is SHA-256 over a file's size, and over what is not zero of it: which zeros are holes does not count, and holes cost
// nothing.
func Sum(ctx context.Context, path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, st.Size()) // a hash takes everything
	b, zeros := make([]byte, sumStep), make([]byte, sumStep)
	for off := int64(0); off < st.Size(); {
		data, end, err := nextData(f, off, st.Size())
		if err != nil {
			return sum, fmt.Errorf("find data of %s: %w", path, err)
		}
		for at := data / sumStep * sumStep; at < end; at += sumStep {
			if err := ctx.Err(); err != nil {
				return sum, err
			}
			n, err := f.ReadAt(b, at)
			if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
				return sum, err
			}
			if !bytes.Equal(b[:n], zeros[:n]) {
				_ = binary.Write(h, binary.BigEndian, at)
				h.Write(b[:n])
			}
			off = at + sumStep
		}
		off = max(off, end)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// copyStep bounds one copy call, so that a cancelled copy ends soon.
const copyStep = 64 << 20

// CopySparse copies src's data to dst, which must exist and be empty, and leaves src's holes as holes. dst gets src's size.
func CopySparse(ctx context.Context, dst, src string) error {
	return pair(dst, src, func(out, in *os.File) error {
		st, err := in.Stat()
		if err != nil {
			return err
		}
		if err := out.Truncate(st.Size()); err != nil {
			return err
		}
		for off := int64(0); off < st.Size(); {
			data, end, err := nextData(in, off, st.Size())
			if err != nil {
				return fmt.Errorf("find data of %s: %w", src, err)
			}
			if err := copyRange(ctx, out, in, data, end); err != nil {
				return fmt.Errorf("copy %s to %s: %w", src, dst, err)
			}
			off = end
		}
		return nil
	})
}

// nextData finds the next stretch of data at or after off; both results are size when only a hole is left.
func nextData(f *os.File, off, size int64) (data, end int64, err error) {
	data, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	return data, end, err
}

func copyRange(ctx context.Context, out, in *os.File, from, to int64) error {
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, w := from, from
		n, err := unix.CopyFileRange(int(in.Fd()), &r, int(out.Fd()), &w, int(min(to-from, copyStep)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
			m, err := io.Copy(io.NewOffsetWriter(out, from), io.NewSectionReader(in, from, min(to-from, copyStep)))
			if err != nil {
				return err
			}
			n = int(m)
		case err != nil:
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF // src became shorter
		}
		from += int64(n)
	}
	return nil
}

func pair(dst, src string, do func(out, in *os.File) error) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = do(out, in)
	return errors.Join(err, out.Close())
}
