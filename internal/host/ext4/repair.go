package ext4

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// Tools refuses a host that lacks a program which Check, Enlarge, Has and Empty need (vm.CodeMissing).
func Tools() error {
	for _, name := range []string{"e2fsck", "resize2fs", "debugfs"} {
		if _, err := find(name); err != nil {
			return err
		}
	}
	return nil
}

// find is a program's path. These lie where ordinary users' PATH does not reach.
func find(name string) (string, error) {
	for _, path := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	return "", vm.Errorf(vm.CodeMissing, "%s is not installed", name).WithHint("apt install e2fsprogs")
}

// Check replays the journal of the file system in a file that nobody has mounted, and mends what can be mended without loss.
// vm.CodeInvalid when more is wrong.
func Check(ctx context.Context, path string) error {
	out, code, err := run(ctx, "e2fsck", "-f", "-p", path)
	const mended = 1 | 2 // bits of its exit status
	if err == nil && code&^mended != 0 {
		err = vm.Errorf(vm.CodeInvalid, "the file system is damaged: %s", last(out)).WithHint("e2fsck -f mends what can be mended; keep a copy of the file")
	}
	return err
}

// Enlarge gives the file, which was checked, and the file system in it size bytes where they have fewer.
func Enlarge(ctx context.Context, path string, size int64) error {
	st, err := os.Stat(path)
	if err == nil && st.Size() < size {
		err = os.Truncate(path, size)
	}
	if err != nil {
		return err
	}
	out, code, err := run(ctx, "resize2fs", "-f", path)
	if err == nil && code != 0 {
		err = fmt.Errorf("enlarge the file system to %d bytes: %s", size, last(out))
	}
	return err
}

// Has says whether the file system has something of that name, a link that leads nowhere too.
func Has(ctx context.Context, path, name string) (bool, error) {
	out, err := stat(ctx, path, name)
	return strings.HasPrefix(out, "Inode: ") || strings.Contains(out, "\nInode: "), err
}

// Link is where the symbolic link of that name leads to; empty where there is none, or one of more than 59 bytes.
func Link(ctx context.Context, path, name string) (string, error) {
	out, err := stat(ctx, path, name)
	_, to, _ := strings.Cut(out, "Fast link dest: \"")
	to, _, _ = strings.Cut(to, "\"")
	return to, err
}

func stat(ctx context.Context, path, name string) (string, error) {
	out, _, err := run(ctx, "debugfs", "-R", "stat "+name, path) // its exit status is 0 whatever came of it
	return out, err
}

// Clear removes the files of these names from the file system, where they are, and leaves an empty one in the place of those in
// empty. The directory that path lies in gets a file of its own for a moment.
func Clear(ctx context.Context, path string, remove, empty []string) error {
	const nothing = "nothing"
	if len(empty) > 0 {
		at := filepath.Join(filepath.Dir(path), nothing)
		if err := os.WriteFile(at, nil, 0o644); err != nil {
			return err
		}
		defer func() { _ = os.Remove(at) }()
	}
	for n, name := range slices.Concat(remove, empty) {
		there, err := Has(ctx, path, name)
		if err != nil || !there {
			if err != nil {
				return err
			}
			continue
		}
		commands := []string{"rm " + name}
		if n >= len(remove) {
			commands = append(commands, "write "+nothing+" "+name)
		}
		for _, c := range commands {
			if _, _, err := run(ctx, "debugfs", "-w", "-R", c, path); err != nil {
				return err
			}
		}
		if there, err = Has(ctx, path, name); err != nil || there != (n >= len(remove)) {
			return errors.Join(err, fmt.Errorf("clear %s in the file system %s: it does not take effect", name, path))
		}
	}
	return nil
}

// run runs one of the programs on the file that is the last argument, and in its directory. Its exit status is no error.
func run(ctx context.Context, name string, args ...string) (output string, code int, err error) {
	program, err := find(name)
	if err != nil {
		return "", 0, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = filepath.Dir(args[len(args)-1])
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBUGFS_PAGER=cat")
	b, err := cmd.CombinedOutput()
	output = string(b)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return output, 0, context.Cause(ctx)
	case strings.Contains(output, "No space left on device"):
		return output, 0, fmt.Errorf("run %s: %w", name, unix.ENOSPC) // they tell it in words only
	case errors.As(err, &exit) && exit.Exited():
		return output, exit.ExitCode(), nil
	case err != nil:
		return output, 0, fmt.Errorf("run %s: %w", name, err)
	}
	return output, 0, nil
}

// last are the last words of what a program said.
func last(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
