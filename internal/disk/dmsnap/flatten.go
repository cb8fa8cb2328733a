package dmsnap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"banger/internal/disk"
	"banger/internal/host/file"
)

// Flatten copies the image, and writes over that the chunks that the store has. It asks nothing of the kernel, which keeps
// nothing of a detached store to itself.
func (Driver) Flatten(ctx context.Context, o disk.Overlay, dst string) error {
	st, err := os.Stat(o.Base)
	if err != nil {
		return disk.FlattenError(o, err)
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return disk.FlattenError(o, err)
	}
	defer func() { _ = f.Close() }()
	if err := check(o.Path, stampOf(o.Base, st.Size())); err != nil {
		return err
	}
	if err := file.Copy(ctx, dst, o.Base); err != nil {
		return disk.FlattenError(o, err)
	}
	out, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		return disk.FlattenError(o, err)
	}
	err = eachException(f, func(old, here int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := make([]byte, chunk)
		if _, err := f.ReadAt(b, here*chunk); err != nil {
			return err
		}
		left := st.Size() - old*chunk
		if left <= 0 {
			return fmt.Errorf("it has chunk %d of an image of %d bytes", old, st.Size())
		}
		_, err := out.WriteAt(b[:min(chunk, left)], old*chunk)
		return err
	})
	return disk.FlattenError(o, errors.Join(err, out.Close()))
}

// eachException calls do for each chunk that the store has, with its number in the image and in the store, in the order in which
// they were written down. The first that is empty ends the list.
func eachException(r io.ReaderAt, do func(old, here int64) error) error {
	area := make([]byte, chunk)
	for at := int64(1); ; at += 1 + perArea {
		switch _, err := r.ReadAt(area, at*chunk); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		for e := area; len(e) > 0; e = e[16:] {
			old, here := binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint64(e[8:])
			if here == 0 {
				return nil
			}
			if old > 1<<50 || here > 1<<50 {
				return fmt.Errorf("its exceptions are damaged: %d, %d", old, here)
			}
			if err := do(int64(old), int64(here)); err != nil {
				return err
			}
		}
	}
}
