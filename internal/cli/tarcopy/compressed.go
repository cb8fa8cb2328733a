package tarcopy

import (
	"bufio"
	"io"
	"strings"
)

// compressors, by what a stream of theirs begins with.
var compressors = map[string]string{"\x1f\x8b": "gzip", "\xfd7zXZ\x00": "xz", "\x28\xb5\x2f\xfd": "zstd", "BZh": "bzip2"}

// longestMagic is how much of a stream says how it is compressed.
const longestMagic = 6

// Compressed names the program that a stream is compressed by, "" for none, and returns the stream from its beginning.
func Compressed(r io.Reader) (by string, whole io.Reader) {
	b := bufio.NewReader(r)
	head, _ := b.Peek(longestMagic) // what is wrong with it, its reader is told
	for magic, name := range compressors {
		if strings.HasPrefix(string(head), magic) {
			return name, b
		}
	}
	return "", b
}
