// Package guestbin carries banger-guest, the static binary that is init and agent of every guest, inside bangerd: packed,
// since it is needed once for each kernel, and else would only lie in the daemon's memory.
//
// `make build` puts the binary into bin/ before it builds bangerd. The directory holds a README otherwise, so that
// every package compiles in a fresh clone; there is nothing to give then. Nothing but internal/daemon may import this
// package: it adds megabytes to whoever does.
package guestbin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"

	"banger/internal/vm"
)

//go:embed all:bin
var files embed.FS

const (
	packed = "bin/banger-guest.gz"
	sum    = "bin/banger-guest.sha256" // of what is in it, as sha256sum writes it
)

// Key is the binary's SHA-256 in hexadecimal. vm.CodeMissing when this program was built without the binary.
func Key() (string, error) { return key(files) }

// Binary returns the ELF image of banger-guest, unpacked anew each time. Errors are those of Key, and vm.CodeCorrupt when
// it is not the binary that Key speaks of.
func Binary() ([]byte, error) { return read(files) }

func key(from fs.FS) (string, error) {
	b, err := open(from, sum)
	if err != nil {
		return "", err
	}
	key, _, _ := strings.Cut(string(b), " ")
	return key, nil
}

func read(from fs.FS) ([]byte, error) {
	want, err := key(from)
	if err != nil {
		return nil, err
	}
	b, err := open(from, packed)
	if err != nil {
		return nil, err
	}
	var whole bytes.Buffer
	if len(b) >= 4 { // RFC 1952: it ends with the size of what is in it
		whole.Grow(min(int(binary.LittleEndian.Uint32(b[len(b)-4:])), 32<<20) + bytes.MinRead)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		_, err = whole.ReadFrom(z)
	}
	if err != nil {
		return nil, vm.Errorf(vm.CodeCorrupt, "unpack the embedded guest binary: %w", err).WithHint("build bangerd anew: make build")
	}
	if is := sha256.Sum256(whole.Bytes()); hex.EncodeToString(is[:]) != want {
		return nil, vm.Errorf(vm.CodeCorrupt, "the embedded guest binary is not the one that was built").WithHint("build bangerd anew: make build")
	}
	return whole.Bytes(), nil
}

func open(from fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(from, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, vm.Errorf(vm.CodeMissing, "bangerd was built without the guest binary").
			WithHint("build it with: make build")
	}
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "read the embedded guest binary: %w", err)
	}
	return b, nil
}
