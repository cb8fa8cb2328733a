// Package compressed reads data in all the ways in which kernels, packages and root file systems are compressed. It knows
// nothing of these.
package compressed

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Kernels are compressed with a dictionary as large as themselves.
const (
	maxDictionary = 256 << 20
	maxWindow     = 256 << 20
)

// ErrUnknown says that data begins as none of these does.
var ErrUnknown = errors.New("compressed in no known format (gzip, xz, zstd, lz4, bzip2, lzma)")

// formats by their first bytes. lzma has no magic but its usual properties byte and dictionary size.
var formats = []struct {
	name  string
	magic string
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"gzip", "\x1f\x8b\x08", func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	// Not ulikunitz/xz: kernels are compressed through the x86 filter, which it lacks.
	{"xz", "\xfd7zXZ\x00", func(r io.Reader) (io.ReadCloser, error) { return plain(xz.NewReader(r, maxDictionary)) }},
	{"zstd", "\x28\xb5\x2f\xfd", func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}},
	{"lz4", "\x02\x21\x4c\x18", openLZ4}, // the legacy frame, which the kernel's build uses
	{"lz4", "\x04\x22\x4d\x18", openLZ4},
	{"bzip2", "BZh", func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }},
	{"lzma", "\x5d\x00\x00", func(r io.Reader) (io.ReadCloser, error) {
		return plain(lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(r)) // without it, a header alone reserves up to 2 GiB
	}},
}

func openLZ4(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(lz4.NewReader(r)), nil }

func plain[R io.Reader](r R, err error) (io.ReadCloser, error) { return io.NopCloser(r), err }

// NewReader returns what r holds, decompressed by the magic it begins with; ErrUnknown when it has none.
func NewReader(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(MagicSize)
	if len(head) == 0 {
		return nil, fmt.Errorf("read compressed data: %w", cutOff(err))
	}
	for _, f := range formats {
		if !bytes.HasPrefix(head, []byte(f.magic)) {
			continue
		}
		d, err := f.open(b)
		if err != nil {
			return nil, fmt.Errorf("read %s data: %w", f.name, err)
		}
		return d, nil
	}
	return nil, ErrUnknown
}

// cutOff makes a plain end of file what it is where something is to come: a truncation.
func cutOff(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// MagicSize is how many bytes Is needs at most.
const MagicSize = 6

// Is says whether data that begins with head is compressed in a way that NewReader reads.
func Is(head []byte) bool {
	for _, f := range formats {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return true
		}
	}
	return false
}
