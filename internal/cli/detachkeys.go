package cli

import (
	"io"
	"sync"
)

// detachKeys is a terminal's input in which ctrl-p ctrl-q has the client leave its command, as with Docker. A ctrl-p waits
// for the key after it.
type detachKeys struct {
	in   io.Reader
	left chan struct{} // closed when they were typed
	once sync.Once
	held bool   // the last key was ctrl-p
	rest []byte // of what was read, not given yet
}

const (
	ctrlP = 0x10
	ctrlQ = 0x11
)

func newDetachKeys(in io.Reader) *detachKeys { return &detachKeys{in: in, left: make(chan struct{})} }

// Read implements io.Reader. Behind the keys nothing comes any more, not even an end: it would be one of the command's input.
func (d *detachKeys) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n := copy(p, d.rest); n > 0 {
			d.rest = d.rest[n:]
			return n, nil
		}
		buf := make([]byte, len(p))
		n, err := d.in.Read(buf)
		d.take(buf[:n])
		if len(d.rest) > 0 {
			continue // the error comes again
		}
		select {
		case <-d.left:
			select {}
		default:
		}
		if err != nil {
			return 0, err
		}
	}
}

// take adds keys to the rest, up to those that leave.
func (d *detachKeys) take(keys []byte) {
	for _, k := range keys {
		if d.held && k == ctrlQ {
			d.once.Do(func() { close(d.left) })
			return
		}
		if d.held {
			d.rest = append(d.rest, ctrlP)
		}
		if d.held = k == ctrlP; !d.held {
			d.rest = append(d.rest, k)
		}
	}
}
