package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A user has 128 inotify instances and tens of thousands of watches (inotify(7)): each VM has two logs, so all users of
// this package share one instance, which is there as long as somebody uses it. That is why there is a global here.
var shared struct {
	mu  sync.Mutex
	now *instance // nil when nobody watches
}

// instance is one inotify descriptor. All but fd, file, closing and ended is guarded by shared.mu.
type instance struct {
	fd      int
	file    *os.File      // of fd: non-blocking, its reads wait in the runtime's poller
	closing chan struct{} // closed when nobody uses it any more
	ended   chan struct{} // closed when its reader has
	users   int
	watches map[int32]map[*watch]bool // by watch descriptor
	err     error                     // what ended the reader
}

// watch wakes somebody when a log may have changed. A second event that comes before the first was looked at is the same.
type watch struct {
	wake chan struct{} // size 1
	in   *instance
	file int32 // watch descriptor, guarded by shared.mu; 0 as long as there is none
}

const (
	// Not what is written in it: a VM's disks lie beside its logs. Nor is IN_DELETE_SELF of use, which comes only when the
	// last file in it that somebody has open is closed: a directory that goes is seen from the one above.
	dirEvents  = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_ONLYDIR
	fileEvents = unix.IN_MODIFY | unix.IN_DONT_FOLLOW
)

// newWatch watches what comes to be and goes in a directory.
func newWatch(dir string) (*watch, error) {
	w := &watch{wake: make(chan struct{}, 1)}
	shared.mu.Lock()
	if shared.now == nil {
		in, err := newInstance()
		if err != nil {
			shared.mu.Unlock()
			return nil, err
		}
		shared.now = in
	}
	w.in = shared.now
	w.in.users++
	shared.mu.Unlock()
	if err := w.directory(dir); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// directory watches another directory as well.
func (w *watch) directory(dir string) error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if _, err := w.in.add(w, dir, dirEvents); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	return nil
}

// follow watches the file that is at path now, if any, instead of one that was there before.
func (w *watch) follow(path string) error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	wd, err := w.in.add(w, path, fileEvents)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch it: %w", err)
	}
	if w.file != 0 && w.file != wd {
		w.in.drop(w, w.file)
	}
	w.file = wd
	return nil
}

// failed tells what went wrong with watching.
func (w *watch) failed() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	return w.in.err
}

// close ends the watch, and with the last one the instance.
func (w *watch) close() {
	in := w.in
	shared.mu.Lock()
	for wd := range in.watches {
		in.drop(w, wd)
	}
	in.users--
	last := in.users == 0
	if last && shared.now == in {
		shared.now = nil
	}
	shared.mu.Unlock()
	if last {
		close(in.closing)
		_ = in.file.Close()
		<-in.ended
	}
}

func newInstance() (*instance, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	in := &instance{fd: fd, file: os.NewFile(uintptr(fd), "inotify"), closing: make(chan struct{}), ended: make(chan struct{}), watches: map[int32]map[*watch]bool{}}
	go in.read()
	return in, nil
}

// add makes w hear of path. One that is watched already keeps its descriptor and its other hearers.
func (in *instance) add(w *watch, path string, events uint32) (int32, error) {
	n, err := unix.InotifyAddWatch(in.fd, path, events)
	if err != nil {
		return 0, err
	}
	wd := int32(n)
	if in.watches[wd] == nil {
		in.watches[wd] = map[*watch]bool{}
	}
	in.watches[wd][w] = true
	return wd, nil
}

// drop makes w hear no more of a watch descriptor, which ends with its last hearer.
func (in *instance) drop(w *watch, wd int32) {
	hearers := in.watches[wd]
	if !hearers[w] {
		return
	}
	delete(hearers, w)
	if len(hearers) == 0 {
		delete(in.watches, wd)
		_, _ = unix.InotifyRmWatch(in.fd, uint32(wd)) // it may have ended with its file
	}
}

// rest is how long events may gather before they are read. A guest's console is written byte by byte; the kernel makes one
// event of those that are alike and that nobody has read.
const rest = 20 * time.Millisecond

// read hands out events until the instance is closed.
func (in *instance) read() {
	defer close(in.ended)
	buf := make([]byte, 64<<10)
	for {
		n, err := in.file.Read(buf)
		shared.mu.Lock()
		if err != nil {
			in.err = fmt.Errorf("read inotify: %w", err)
			if shared.now == in {
				shared.now = nil // the next watch gets a new one
			}
			in.wakeAll()
			shared.mu.Unlock()
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			in.event(int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]))
			b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
		}
		shared.mu.Unlock()
		select {
		case <-time.After(rest):
		case <-in.closing:
		}
	}
}

func (in *instance) event(wd int32, mask uint32) {
	if mask&unix.IN_Q_OVERFLOW != 0 { // something happened to somebody
		in.wakeAll()
		return
	}
	for w := range in.watches[wd] {
		if wd == w.file && mask&unix.IN_IGNORED != 0 {
			w.file = 0
		}
		w.poke()
	}
	if mask&unix.IN_IGNORED != 0 { // the descriptor has ended
		delete(in.watches, wd)
	}
}

func (in *instance) wakeAll() {
	for _, hearers := range in.watches {
		for w := range hearers {
			w.poke()
		}
	}
}

func (w *watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
