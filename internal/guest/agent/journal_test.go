package agent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/guest"
)

func testBudget(limit int64) *budget {
	return &budget{limit: limit, reclaim: func() bool { return false }}
}

// follow makes a reader that begins at an offset, or with the oldest kept.
func (j *journal) follow(from int64, keptOnly, looks bool) *reader {
	return j.attach(guest.AttachRequest{From: from, KeptOnly: keptOnly, Watch: looks})
}

// all reads a journal to its end.
func (r *reader) all() (out, err []byte, dropped int64) {
	defer r.leave()
	for {
		c, d := r.next()
		switch {
		case d > 0:
			dropped += d
		case len(c.data) == 0:
			return out, err, dropped
		case c.stream == guest.FrameStdout:
			out = append(out, c.data...)
		default:
			err = append(err, c.data...)
		}
	}
}

func TestJournalKeepsTheNewest(t *testing.T) {
	b := testBudget(100 << 20)
	j := newJournal(b)
	want := make([]byte, 3*guest.KeptOutput)
	for i := range want {
		want[i] = byte(i % 251)
	}
	for p := want; len(p) > 0; p = p[min(len(p), 5000):] {
		j.append(guest.FrameStdout, p[:min(len(p), 5000)])
	}
	j.close()
	written, kept := j.sizes()
	if written != int64(len(want)) || kept > guest.KeptOutput || kept < guest.KeptOutput*9/10 {
		t.Errorf("%d bytes written, %d kept", written, kept)
	}
	out, _, dropped := j.follow(0, false, false).all()
	if dropped != written-kept || !bytes.Equal(out, want[dropped:]) {
		t.Errorf("%d bytes dropped, and %d others came", dropped, len(out))
	}
	// Who has most of it already gets the rest.
	out, _, dropped = j.follow(written-7, false, false).all()
	if dropped != 0 || !bytes.Equal(out, want[len(want)-7:]) {
		t.Errorf("from the last seven bytes: %d dropped, %q", dropped, out)
	}
	if out, _, dropped = j.follow(written+7, false, false).all(); len(out) != 0 || dropped != 0 {
		t.Errorf("from behind its end: %d dropped, %q", dropped, out)
	}
	j.forget()
	if used := b.used.Load(); used != 0 {
		t.Errorf("%d bytes are still accounted for", used)
	}
}

// Single bytes to both streams in turn are dear, and bounded as well.
func TestJournalOfManyPieces(t *testing.T) {
	j := newJournal(testBudget(100 << 20))
	for range guest.KeptOutput / 8 {
		j.append(guest.FrameStdout, []byte("o"))
		j.append(guest.FrameStderr, []byte("e"))
	}
	if n := len(j.chunks); n > guest.KeptOutput/chunkCost {
		t.Errorf("%d chunks are kept", n)
	}
	j.close()
	out, err, dropped := j.follow(0, false, false).all()
	if len(out)-len(err) > 1 || len(err)-len(out) > 1 || int64(len(out)+len(err))+dropped != guest.KeptOutput/4 {
		t.Errorf("%d bytes and %d, %d dropped", len(out), len(err), dropped)
	}
}

// Where all journals together may keep little, each still keeps its newest chunk.
func TestJournalWithoutBudget(t *testing.T) {
	j := newJournal(testBudget(10))
	j.append(guest.FrameStdout, []byte("first"))
	j.append(guest.FrameStderr, []byte("second"))
	j.close()
	if out, err, dropped := j.follow(0, false, false).all(); len(out) != 0 || string(err) != "second" || dropped != 5 {
		t.Errorf("%q, %q, %d dropped", out, err, dropped)
	}
}

func TestJournalKeptOnly(t *testing.T) {
	j := newJournal(testBudget(1 << 20))
	j.append(guest.FrameStdout, []byte("now"))
	r := j.follow(0, true, true)
	j.append(guest.FrameStdout, []byte("later"))
	if out, _, _ := r.all(); string(out) != "now" {
		t.Errorf("%q", out)
	}
}

// A writer waits for who reads, loses nothing to them, and goes on when they leave.
func TestJournalWaitsForItsReaders(t *testing.T) {
	j := newJournal(testBudget(100 << 20))
	slow, gone := j.follow(0, false, false), j.follow(0, false, false)
	const size = 4 * guest.KeptOutput
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range size / 1024 {
			j.append(guest.FrameStdout, bytes.Repeat([]byte{byte(i)}, 1024))
		}
		j.close()
	}()
	for n := 0; n < guest.KeptOutput/2; { // the writer fills what there is room for, and waits
		c, _ := slow.next()
		n += len(c.data)
	}
	select {
	case <-written:
		t.Fatal("it did not wait for a reader at the beginning")
	default:
	}
	gone.leave()
	if c, dropped := gone.next(); len(c.data) > 0 || dropped > 0 {
		t.Error("a reader that left got something")
	}
	if _, _, dropped := slow.all(); dropped != 0 {
		t.Errorf("%d bytes were dropped before their reader", dropped)
	}
	<-written
	if written, _ := j.sizes(); written != size {
		t.Errorf("%d bytes written", written)
	}
}

// Readers come and go while two streams are written: each gets the bytes of its place, or is told of so many missing.
func TestJournalReadersAtOnce(t *testing.T) {
	j := newJournal(testBudget(100 << 20))
	const size = 3 * guest.KeptOutput
	var writers, readers sync.WaitGroup
	for _, stream := range []guest.FrameType{guest.FrameStdout, guest.FrameStderr} {
		writers.Go(func() {
			for n := 0; n < size; {
				p := make([]byte, min(1+rand.IntN(4000), size-n))
				for i := range p {
					p[i] = byte((n + i) % 251)
				}
				j.append(stream, p)
				n += len(p)
			}
		})
	}
	for range 4 {
		readers.Go(func() {
			r := j.follow(0, false, false)
			_, _ = r.next()
			r.leave()
		})
		readers.Go(func() {
			out, err, dropped := j.follow(0, false, false).all()
			if int64(len(out)+len(err))+dropped != 2*size {
				t.Errorf("%d and %d bytes, %d dropped", len(out), len(err), dropped)
			}
			for _, b := range [][]byte{out, err} { // of each stream what came is its end, without a gap
				for i := range b {
					if b[len(b)-1-i] != byte((size-1-i)%251) {
						t.Errorf("%d bytes before the end another was written", i)
						break
					}
				}
			}
		})
	}
	writers.Wait()
	j.close()
	readers.Wait()
}

// Who only looks, and reads nothing, holds nobody back; what it misses it is told. What is forgotten is kept for whoever is
// still about to read it.
func TestLookers(t *testing.T) {
	j := newJournal(testBudget(100 << 20))
	look, kept := j.follow(0, false, true), j.follow(0, true, true)
	const writes = 3 * guest.KeptOutput / 1000
	for range writes {
		j.append(guest.FrameStdout, make([]byte, 1000)) // would wait for ever
	}
	j.close()
	j.forget()
	out, _, dropped := look.all()
	if dropped == 0 || len(out)+int(dropped) != writes*1000 {
		t.Errorf("%d bytes, and %d dropped, of %d", len(out), dropped, writes*1000)
	}
	if out, _, dropped := kept.all(); len(out) != 0 || dropped != 0 {
		t.Errorf("of nothing: %d bytes, %d dropped", len(out), dropped)
	}
	if _, kept := j.sizes(); kept != 0 {
		t.Errorf("%d bytes are kept for nobody", kept)
	}
}

// The last lines are those of both streams, in the order in which they came, however that was cut into pieces.
func TestLastLinesOfAJournal(t *testing.T) {
	o, e := guest.FrameStdout, guest.FrameStderr
	type piece struct {
		stream guest.FrameType
		text   string
	}
	for _, tt := range []struct {
		pieces []piece
		lines  int
		want   string // both streams, in order
	}{
		{nil, 1, ""},
		{[]piece{{o, "one\ntwo\n"}}, 0, ""},
		{[]piece{{o, "one\ntwo\n"}}, 1, "two\n"},
		{[]piece{{o, "one\ntwo\n"}}, 2, "one\ntwo\n"},
		{[]piece{{o, "one\ntwo\n"}}, 1 << 40, "one\ntwo\n"},
		{[]piece{{o, "one\ntwo\n"}}, -1, "one\ntwo\n"},
		{[]piece{{o, "one\ntw"}}, 1, "tw"}, // a line that has no end yet is one
		{[]piece{{o, "one\n\n\n"}}, 2, "\n\n"},
		{[]piece{{o, "one"}}, 1, "one"},
		{[]piece{{o, "one\n"}, {e, "err\n"}, {o, "two\n"}}, 2, "err\ntwo\n"},
		{[]piece{{o, "one\nt"}, {e, "err\n"}, {o, "wo"}, {e, "\n"}}, 1, "wo\n"},
		{[]piece{{o, "one\nt"}, {e, "e"}, {o, "wo"}, {e, "\n"}}, 1, "tewo\n"},
	} {
		j := newJournal(testBudget(100 << 20))
		for _, p := range tt.pieces {
			j.append(p.stream, []byte(p.text))
		}
		j.close()
		r := j.attach(guest.AttachRequest{Watch: true, Tail: &tt.lines})
		var got string
		for c, _ := r.next(); len(c.data) > 0; c, _ = r.next() {
			got += string(c.data)
		}
		if r.leave(); got != tt.want {
			t.Errorf("the last %d lines of %v: %q, want %q", tt.lines, tt.pieces, got, tt.want)
		}
	}
}

// Of lines that are not kept any more it is told, and of those that nobody asked for it is not. From an offset, a time and a line
// the last counts, and what is written later follows.
func TestLastLinesBesideOtherBounds(t *testing.T) {
	j, now := clocked()
	last := func(lines int, req guest.AttachRequest) string {
		t.Helper()
		req.Tail, req.KeptOnly = &lines, true
		out, _, dropped := j.attach(req).all()
		return fmt.Sprintf("%s%d dropped", out, dropped)
	}
	j.append(guest.FrameStdout, []byte(strings.Repeat("x", guest.KeptOutput-100)+"\n"))
	j.append(guest.FrameStderr, bytes.Repeat([]byte("y\n"), guest.MaxFrame/4)) // has the first go
	begin := *now
	for i := range 4 {
		*now = now.Add(time.Minute)
		j.append(guest.FrameStdout, fmt.Appendf(nil, "%d\n", i))
	}
	if got := last(2, guest.AttachRequest{}); got != "2\n3\n0 dropped" {
		t.Errorf("two lines: %q", got)
	}
	if got := last(1<<20, guest.AttachRequest{}); !strings.HasSuffix(got, fmt.Sprintf("3\n%d dropped", j.begin)) || j.begin == 0 {
		t.Errorf("more lines than are kept: %q", got)
	}
	if got := last(3, guest.AttachRequest{Since: &guest.Moment{Ago: 30 * time.Second}}); got != "3\n0 dropped" {
		t.Errorf("three lines of half a minute: %q", got)
	}
	if got := last(1, guest.AttachRequest{Until: &guest.Moment{At: new(begin.Add(150 * time.Second))}}); got != "1\n0 dropped" {
		t.Errorf("one line until a time: %q", got)
	}
	if got := last(3, guest.AttachRequest{From: j.end - 1}); got != "\n0 dropped" {
		t.Errorf("three lines, but for what is there already: %q", got)
	}
	none := 0
	r := j.attach(guest.AttachRequest{Watch: true, Tail: &none})
	j.append(guest.FrameStdout, []byte("later\n"))
	j.close()
	if out, _, _ := r.all(); string(out) != "later\n" {
		t.Errorf("what comes later: %q", out)
	}
}
