package binary

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is longer than the clock that files get their times from may stand still: one that was changed just now may be
// changed again under the same time.
const clockTick = time.Second

// digests remembers the digests of files for as long as these are not changed: they are asked for at each start of a VM. The
// zero value is ready.
type digests struct {
	mu   sync.Mutex
	seen map[string]seen // by path
}

// seen is a digest, and what tells that the file is still the one it is of: nobody sets a file's time of change.
type seen struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
	digest        string
}

func (d *digests) of(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return digestOf(path) // which tells better
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := seen{st.Dev, st.Ino, st.Size, st.Ctim, ""}
	was := d.seen[path]
	now.digest = was.digest
	if was == now {
		return was.digest, nil
	}
	digest, err := digestOf(path)
	if err != nil {
		return "", err
	}
	if d.seen == nil {
		d.seen = map[string]seen{}
	}
	if now.digest = digest; time.Since(time.Unix(st.Ctim.Unix())) > clockTick {
		d.seen[path] = now
	}
	return digest, nil
}
