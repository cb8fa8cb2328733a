package kernel

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Debian package is an ar archive (deb(5)): "!<arch>\n", then members, each with a 60-byte text header and padded to
// an even length. The reader is strict, as it meets files from outside; packages use none of ar's dialects for long
// names.

const arMagic = "!<arch>\n"

type arReader struct {
	r    io.Reader
	left int64 // of the current member, unread
	pad  int64
}

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("read ar magic: %w", noEOF(err))
	}
	if string(magic) != arMagic {
		return nil, errors.New("not an ar archive")
	}
	return &arReader{r: r}, nil
}

// next skips to the next member and returns its name; io.EOF after the last.
func (a *arReader) next() (string, error) {
	if n, err := io.CopyN(io.Discard, a.r, a.left+a.pad); err != nil && !(errors.Is(err, io.EOF) && n >= a.left) {
		return "", fmt.Errorf("skip ar member: %w", noEOF(err)) // but the last member's padding may be missing
	}
	a.left, a.pad = 0, 0
	var h [60]byte
	if _, err := io.ReadFull(a.r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return "", io.EOF
		}
		return "", fmt.Errorf("read ar header: %w", err)
	}
	if h[58] != '`' || h[59] != '\n' {
		return "", errors.New("ar header does not end as it should")
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 62)
	if err != nil {
		return "", fmt.Errorf("size of ar member: %w", err)
	}
	a.left, a.pad = int64(size), int64(size&1)
	return strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/"), nil
}

func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if errors.Is(err, io.EOF) && a.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// noEOF makes a plain end of file what it is in the middle of something: a truncation.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
