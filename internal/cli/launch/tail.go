package launch

import (
	"os"
	"strings"
)

const (
	tailBytes = 4 << 10
	tailLines = 10
)

// tailOf returns the last lines that were written to the file after offset from; "" when there are none.
func tailOf(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	if fi.Size() < from {
		from = 0 // rotated under us
	}
	from = max(from, fi.Size()-tailBytes)
	b := make([]byte, fi.Size()-from)
	n, _ := f.ReadAt(b, from)
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
