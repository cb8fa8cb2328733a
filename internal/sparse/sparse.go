// Package sparse writes files with holes where there is nothing but zeros: the agent and the CLI do, at the two ends of a
// copy. It knows nothing of names, owners or tar.
package sparse

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// block is what may become a hole, in bytes: some of the kernel's pages, so that many small gaps do not make many extents.
const block = 64 << 10

var zeros [block]byte

// Copy writes all of r into an empty file. Whole blocks of zeros become holes.
func Copy(f *os.File, r io.Reader) (int64, error) {
	buf := make([]byte, block)
	for size, written := int64(0), int64(0); ; {
		n, err := fill(r, buf)
		if n > 0 && n < block || n == block && !bytes.Equal(buf, zeros[:]) {
			if _, werr := f.WriteAt(buf[:n], size); werr != nil {
				return size, werr
			}
			written = size + int64(n)
		}
		size += int64(n)
		switch {
		case errors.Is(err, io.EOF) && written < size:
			return size, f.Truncate(size) // the hole at its end
		case errors.Is(err, io.EOF):
			return size, nil
		case err != nil:
			return size, err
		}
	}
}

// fill reads until buf is full or r ends. Its error is r's own: that a stream broke off must not look like its end.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}
