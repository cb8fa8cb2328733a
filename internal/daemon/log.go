package daemon

import (
	"os"
	"sync"
)

// logMax bounds the daemon's log in bytes; as much again may lie in its ".1".
const logMax = 5 << 20

// rotatingLog is the daemon's log file, bounded in size. Writing never fails for the caller: a full disk must not stop
// the daemon.
type rotatingLog struct {
	path string
	mu   sync.Mutex
	f    *os.File
	size int64
}

func newLog(path string) *rotatingLog {
	l := &rotatingLog{path: path}
	l.open()
	return l
}

func (l *rotatingLog) open() {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.f = nil
		return
	}
	l.f, l.size = f, 0
	if fi, err := f.Stat(); err == nil {
		l.size = fi.Size()
	}
}

// Write implements io.Writer.
func (l *rotatingLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(p)) > logMax {
		l.closeFile()
		_ = os.Rename(l.path, l.path+".1")
	}
	if l.f == nil {
		l.open()
	}
	if l.f != nil {
		n, _ := l.f.Write(p)
		l.size += int64(n)
	}
	return len(p), nil
}

func (l *rotatingLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeFile()
}

func (l *rotatingLog) closeFile() {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
	l.size = 0
}
