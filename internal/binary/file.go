package binary

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"syscall"

	"banger/internal/vm"
)

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// writeProgram makes an executable file that was not there, on the disk when it returns, and returns its SHA-256.
func writeProgram(file, name string, r io.Reader) (sum string, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, maxProgram+1))
	if err == nil && n > maxProgram {
		err = vm.Errorf(vm.CodeInvalid, "%s has more than %d MiB", name, maxProgram>>20)
	}
	if err == nil {
		err = f.Chmod(0o755) //nolint:gosec // a program, whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

// sumOf is a file's SHA-256 in hex.
func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxArchive)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func digestOf(file string) (string, error) {
	sum, err := sumOf(file)
	if err != nil {
		return "", err
	}
	return "sha256:" + sum, nil
}

// checkELF refuses what this host's kernel cannot execute, or only with libraries that a jail does not have.
func checkELF(file, name string) error {
	f, err := elf.Open(file)
	if err != nil {
		return vm.Errorf(vm.CodeInvalid, "%s is not a program: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return vm.Errorf(vm.CodeInvalid, "%s is a program for %v (%v), not for x86-64", name, f.Machine, f.Class)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return vm.Errorf(vm.CodeInvalid, "%s is no program but an ELF file of type %v", name, f.Type)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return vm.Errorf(vm.CodeInvalid, "%s is not linked statically: a jail has no libraries", name).
				WithHint("the project's own releases are; a program of yours can be named in config.toml ([%s] binary)", Name)
		}
	}
	return nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// explain says what was being done, and gives the errors that a caller branches on their code.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isNoSpace(err):
		return vm.Errorf(vm.CodeNoSpace, "%s: %w", what, err).WithHint("free some space: it takes 100 MB while it is unpacked")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return vm.Errorf(vm.CodeCanceled, "%s: %w", what, err)
	case errors.Is(err, os.ErrNotExist) && vm.CodeOf(err) == vm.CodeInternal:
		return vm.Errorf(vm.CodeNotFound, "%s: %w", what, err)
	}
	return vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
}
