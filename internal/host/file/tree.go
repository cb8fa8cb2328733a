package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Born is when a file or directory was made; zero where its file system does not keep that. Links are not followed.
func Born(path string) time.Time {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}

// Mounts lists where something is mounted in this process's view, in the order in which it was.
func Mounts() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return mountPoints(string(b)), nil
}

// mountPoints takes the fifth field of each line (proc(5)). Spaces and the like are written as "\040".
func mountPoints(mountinfo string) (all []string) {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		all = append(all, unescape(f[4]))
	}
	return all
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// RemoveTree removes a directory with all that is in it, unless something is mounted there: that is somebody's, and its
// files are not the directory's. Links are removed, not followed, dir itself if it is one. An absent directory is success.
// what names its kind in crash points.
func RemoveTree(ctx context.Context, what, dir string) error {
	fi, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return remove(ctx, what+".remove", dir)
	}
	if !fi.IsDir() {
		return fmt.Errorf("remove %s: it is no directory", dir)
	}
	mounts, err := Mounts()
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	plain, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	if i := slices.IndexFunc(mounts, func(m string) bool { return m == plain || strings.HasPrefix(m, plain+"/") }); i >= 0 {
		return fmt.Errorf("remove %s: something is mounted at %s (umount it first, if that is not needed)", dir, mounts[i])
	}
	return act.Do(ctx, what+".remove", func() error { return os.RemoveAll(dir) })
}
