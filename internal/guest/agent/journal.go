package agent

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"time"

	"banger/internal/guest"
)

// journal is what a job wrote, the newest of it: both streams in the order in which they were read. Readers follow it, each
// at its own place. A writer waits for the slowest of them, as for a pipe, but for those who only look; where there is none,
// the oldest is dropped.
type journal struct {
	budget *budget
	now    func() time.Time

	mu       sync.Mutex
	changed  *sync.Cond
	chunks   []chunk  // the first begins at begin
	begin    int64    // offset of the oldest byte kept
	end      int64    // bytes ever written
	size     int      // what chunks cost
	arrivals arrivals // beside that
	closed   bool     // nothing comes any more
	over     bool     // nobody will ask for it any more: it is dropped when the last reader has left
	readers  map[*reader]struct{}
}

type chunk struct {
	at     int64           // offset of its first byte
	stream guest.FrameType // FrameStdout or FrameStderr
	data   []byte
}

// chunkCost is what a chunk takes beside its bytes: a job that writes single bytes to both streams in turn has many.
const chunkCost = 64

// reader is one follower's place in a journal.
type reader struct {
	j     *journal
	at    int64 // offset of the next byte it wants
	until int64 // it ends there; -1 = with the journal
	looks bool  // no writer waits for it
	left  bool

	times bool      // what came at another time comes apart
	when  time.Time // of what it got last
}

func newJournal(b *budget) *journal {
	j := &journal{budget: b, now: time.Now, arrivals: arrivals{grain: firstGrain, within: firstGrain}, readers: map[*reader]struct{}{}}
	j.changed = sync.NewCond(&j.mu)
	return j
}

// stream is a writer to one of the two streams.
func (j *journal) stream(t guest.FrameType) journalStream { return journalStream{j, t} }

type journalStream struct {
	j *journal
	t guest.FrameType
}

// Write never fails: a command is not ended since nobody listens.
func (s journalStream) Write(p []byte) (int, error) {
	s.j.append(s.t, p)
	return len(p), nil
}

func (j *journal) append(t guest.FrameType, p []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	cost := len(p) + chunkCost
	for !j.makeRoom(cost) {
		j.changed.Wait()
	}
	last := len(j.chunks) - 1
	if last >= 0 && j.chunks[last].stream == t && len(j.chunks[last].data)+len(p) <= guest.MaxFrame {
		j.chunks[last].data = append(j.chunks[last].data, p...) // readers hold what is before, which stays
		cost -= chunkCost
	} else {
		j.chunks = append(j.chunks, chunk{at: j.end, stream: t, data: append([]byte(nil), p...)})
	}
	j.size += cost
	j.budget.take(cost + j.arrivals.add(j.end, j.now())*markCost)
	j.end += int64(len(p))
	j.changed.Broadcast()
}

// makeRoom drops the oldest chunks until there is room for cost more, and reports whether there is: what a reader has still
// to get stays. One chunk always fits.
func (j *journal) makeRoom(cost int) bool {
	for j.size+cost > guest.KeptOutput || !j.budget.fits(cost) {
		if len(j.chunks) == 0 {
			break
		}
		first := j.begin + int64(len(j.chunks[0].data))
		for r := range j.readers {
			if r.at < first && !r.looks {
				return false
			}
		}
		j.dropFirst()
	}
	return true
}

func (j *journal) dropFirst() {
	cost := len(j.chunks[0].data) + chunkCost
	j.begin += int64(len(j.chunks[0].data))
	j.chunks[0] = chunk{} // for the collector
	j.chunks = j.chunks[1:]
	j.size -= cost
	j.budget.give(cost + j.arrivals.drop(j.begin)*markCost)
}

// close says that nothing comes any more.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.changed.Broadcast()
}

// forget drops all of it, when nobody will ask for it any more, and whoever still follows it has come to the end.
func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	j.dropOver()
}

func (j *journal) dropOver() {
	for j.over && len(j.readers) == 0 && len(j.chunks) > 0 {
		j.dropFirst()
	}
	if j.over && len(j.chunks) == 0 {
		j.budget.give(len(j.arrivals.list) * markCost)
		j.arrivals.list = nil
	}
}

// followed reports whether anybody reads it.
func (j *journal) followed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.readers) > 0
}

// sizes returns how much was ever written, and how much of it is kept.
func (j *journal) sizes() (written, kept int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end, j.end - j.begin
}

// attach makes the reader that a client asks for. Who only looks holds no writer back, and misses what it does not read in time.
// A reader is let in once its place is known: a writer that began to wait for it before would not be told that it need not.
func (j *journal) attach(req guest.AttachRequest) *reader {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := &reader{j: j, at: min(max(req.From, 0), j.end), until: -1, looks: req.KeptOnly || req.Watch, times: req.Times}
	if req.KeptOnly {
		r.until = j.end
	}
	now := j.now()
	if req.Since != nil {
		from := j.arrivals.since(req.Since.Time(now))
		if from < 0 {
			from = j.end
		}
		r.at = max(r.at, from)
	}
	if req.Until != nil {
		if to := j.arrivals.until(req.Until.Time(now)); to >= 0 {
			r.until = to
		}
	}
	if req.Tail != nil && *req.Tail >= 0 {
		to := j.end
		if r.until >= 0 {
			to = r.until
		}
		r.at = max(r.at, j.lastLines(to, *req.Tail))
	}
	j.readers[r] = struct{}{}
	return r
}

// lastLines is the offset at which the last n lines before another one begin; 0 where not that many are kept. Caller holds mu.
func (j *journal) lastLines(to int64, n int) int64 {
	if n == 0 {
		return to
	}
	to-- // the last byte ends the last line, or is of it
	for _, c := range slices.Backward(j.chunks) {
		data := c.data[:min(int64(len(c.data)), max(to-c.at, 0))]
		for at := bytes.LastIndexByte(data, '\n'); at >= 0; at = bytes.LastIndexByte(data, '\n') {
			if n--; n == 0 {
				return c.at + int64(at) + 1
			}
			data = data[:at]
		}
	}
	return 0
}

// next waits for what comes next: bytes of one stream, at most a frame of them, or so many that are not kept any more. At
// the end, and after leave, it returns neither.
func (r *reader) next() (c chunk, dropped int64) {
	j := r.j
	j.mu.Lock()
	defer j.mu.Unlock()
	for !r.left {
		switch {
		case r.at < j.begin:
			to := j.begin
			if r.until >= 0 {
				to = min(to, r.until)
			}
			dropped, r.at = to-r.at, to
			if dropped > 0 {
				return chunk{}, dropped
			}
			return chunk{}, 0 // all that it asked for
		case r.until >= 0 && r.at >= r.until:
			return chunk{}, 0
		case r.at < j.end:
			if c = r.here(); r.until >= 0 {
				c.data = c.data[:min(int64(len(c.data)), r.until-r.at)]
			}
			if r.times {
				var next int64
				if r.when, next = j.arrivals.of(r.at); next > 0 {
					c.data = c.data[:min(int64(len(c.data)), next-r.at)]
				}
			}
			r.at += int64(len(c.data))
			j.changed.Broadcast() // a writer may wait for that
			return c, 0
		case j.closed:
			return chunk{}, 0
		}
		j.changed.Wait()
	}
	return chunk{}, 0
}

// here is what lies at r.at, which is kept.
func (r *reader) here() chunk {
	i, found := slices.BinarySearchFunc(r.j.chunks, r.at, func(c chunk, at int64) int { return cmp.Compare(c.at, at) })
	if !found {
		i-- // within the one before
	}
	c := r.j.chunks[i]
	return chunk{at: r.at, stream: c.stream, data: c.data[r.at-c.at:]}
}

// leave ends the reader, and whoever waits for it or in it.
func (r *reader) leave() {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	r.left = true
	delete(r.j.readers, r)
	r.j.dropOver()
	r.j.changed.Broadcast()
}
