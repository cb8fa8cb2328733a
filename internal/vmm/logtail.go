package vmm

import (
	"errors"
	"io"
	"os"
	"strings"
)

// LogTail returns the last lines of a VMM's log or a guest's console, at most max bytes of them and none from
// before offset from; empty when the file cannot be read.
func LogTail(path string, from, max int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size <= 0 {
		return ""
	}
	if size < from {
		from = 0 // it was cut off and begun anew
	}
	start := from
	if size-from > max {
		start = size - max
	}
	b := make([]byte, size-start)
	n, err := f.ReadAt(b, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	text := strings.TrimLeft(string(b[:n]), "\x00") // a hole: it was cut off, and its writer does not append
	if start > from && len(text) == n {             // begins within a line
		if _, rest, ok := strings.Cut(text, "\n"); ok && rest != "" {
			text = rest
		}
	}
	return strings.TrimSpace(text)
}
