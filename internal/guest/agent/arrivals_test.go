package agent

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/guest"
)

// clocked is a journal whose clock a test sets.
func clocked() (j *journal, now *time.Time) {
	j = newJournal(testBudget(100 << 20))
	now = new(time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC))
	j.now = func() time.Time { return *now }
	return j, now
}

// between is what came of a journal between two times; a zero time is no bound.
func between(j *journal, since, until time.Time) (out string, dropped int64) {
	req := guest.AttachRequest{KeptOnly: true}
	if !since.IsZero() {
		req.Since = &guest.Moment{At: &since}
	}
	if !until.IsZero() {
		req.Until = &guest.Moment{At: &until}
	}
	b, _, dropped := j.attach(req).all()
	return string(b), dropped
}

func TestOutputOfATime(t *testing.T) {
	j, now := clocked()
	begin := *now
	for _, word := range []string{"one ", "two ", "three "} {
		j.append(guest.FrameStdout, []byte(word))
		*now = now.Add(time.Minute)
	}
	at := func(minutes float64) time.Time { return begin.Add(time.Duration(minutes * float64(time.Minute))) }
	for _, tt := range []struct {
		since, until time.Time
		want         string
	}{
		{time.Time{}, time.Time{}, "one two three "},
		{at(-1), time.Time{}, "one two three "},
		{at(0.5), time.Time{}, "two three "},
		{at(1), time.Time{}, "two three "}, // that very moment is in
		{at(2.5), time.Time{}, ""},
		{time.Time{}, at(-1), ""},
		{time.Time{}, at(1), "one two "},
		{time.Time{}, at(9), "one two three "},
		{at(0.5), at(1.5), "two "},
		{at(1.5), at(0.5), ""},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}, ""},
		{time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Time{}, "one two three "},
	} {
		if got, dropped := between(j, tt.since, tt.until); got != tt.want || dropped != 0 {
			t.Errorf("from %s to %s: %q, want %q; %d dropped", tt.since, tt.until, got, tt.want, dropped)
		}
	}
	// A span is one before the guest's now.
	r := j.attach(guest.AttachRequest{KeptOnly: true, Since: &guest.Moment{Ago: 90 * time.Second}})
	if got, _, _ := r.all(); string(got) != "three " {
		t.Errorf("of the last minute and a half: %q", got)
	}
	// Who has some of it already gets none of that again.
	r = j.attach(guest.AttachRequest{KeptOnly: true, From: 6, Since: &guest.Moment{At: new(at(0.5))}})
	if got, _, _ := r.all(); string(got) != "o three " {
		t.Errorf("from the sixth byte: %q", got)
	}
	// A clock that was set back hides nothing.
	*now = begin
	j.append(guest.FrameStdout, []byte("again"))
	if got, _ := between(j, at(1.5), time.Time{}); got != "three again" {
		t.Errorf("with a clock that was set back: %q", got)
	}
}

// What is followed from a time on begins there also where nothing has come since.
func TestFollowFromATime(t *testing.T) {
	j, now := clocked()
	j.append(guest.FrameStdout, []byte("old "))
	*now = now.Add(time.Hour)
	r := j.attach(guest.AttachRequest{Watch: true, Since: &guest.Moment{Ago: time.Minute}})
	j.append(guest.FrameStdout, []byte("new"))
	j.close()
	if got, _, _ := r.all(); string(got) != "new" {
		t.Errorf("%q", got)
	}
}

// What came at different times comes apart, with the times.
func TestTimesOfOutput(t *testing.T) {
	j, now := clocked()
	j.append(guest.FrameStdout, []byte("a"))
	*now = now.Add(firstGrain / 2)
	j.append(guest.FrameStdout, []byte("b"))
	*now = now.Add(time.Second)
	j.append(guest.FrameStdout, []byte("c"))
	j.close()
	r := j.attach(guest.AttachRequest{Times: true})
	var got []string
	for {
		c, _ := r.next()
		if len(c.data) == 0 {
			break
		}
		got = append(got, r.when.UTC().Format("05.0000 ")+string(c.data))
	}
	if want := "00.0000 ab|01.0005 c"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A client gets the times that it asks for, and no other frames than ever where it asks for none.
func TestClientsGetTimes(t *testing.T) {
	_, socket, c := jobsAgent(t)
	path := fifo(t)
	before := time.Now()
	e := dialExec(t, socket, kept("echo old; read x <"+path+"; echo new"))
	id := e.began(t)
	e.readUntil(t, "old")
	between := time.Now().Add(2 * firstGrain)
	<-time.After(time.Until(between))
	goOn(t, path)
	if r, _ := e.exit(t); r.stdout.String() != "new\n" {
		t.Errorf("%q", &r.stdout)
	}
	untilJobs(t, c, "over", one(guest.JobExited))
	frames := func(req guest.AttachRequest) (all []string, times []time.Time) {
		t.Helper()
		req.Job, req.KeptOnly = id, true
		e := dialStream(t, socket, guest.PathAttach, req)
		defer e.leave(t, guest.FrameBye)
		for {
			kind, b, err := e.in.Next()
			switch {
			case err != nil:
				t.Fatal(err)
			case kind == guest.FrameStarted:
				if !strings.Contains(string(b), `"times":true`) {
					t.Errorf("it does not say that it knows times: %s", b)
				}
			case kind == guest.FrameStdout:
				all = append(all, string(b))
			case kind == guest.FrameTime:
				all = append(all, "time")
				times = append(times, time.Unix(0, int64(binary.BigEndian.Uint64(b))))
			case kind == guest.FrameExit:
				return all, times
			default:
				t.Fatalf("frame %d, %q", kind, b)
			}
		}
	}
	if got, _ := frames(guest.AttachRequest{}); strings.Join(got, "") != "old\nnew\n" {
		t.Errorf("without times: %q", got)
	}
	got, times := frames(guest.AttachRequest{Times: true})
	if !slices.Equal(got, []string{"time", "old\n", "time", "new\n"}) || times[0].Before(before) || times[0].After(between) || times[1].Before(between) || times[1].After(time.Now()) {
		t.Errorf("with times: %q, at %s, between %s and %s", got, times, before, between)
	}
	if got, _ := frames(guest.AttachRequest{Since: &guest.Moment{At: &between}}); strings.Join(got, "") != "new\n" {
		t.Errorf("since: %q", got)
	}
	if got, _ := frames(guest.AttachRequest{Until: &guest.Moment{At: &between}}); strings.Join(got, "") != "old\n" {
		t.Errorf("until: %q", got)
	}
}

// What came after a time is never left out, however many of the times have been given up, and more than it only by a few of
// the gaps between what is kept.
func TestNothingYoungerIsLeftOut(t *testing.T) {
	for _, gap := range []time.Duration{firstGrain, firstGrain * 19 / 10, firstGrain * 27 / 10, 7 * firstGrain} {
		j, now := clocked()
		begin := *now
		const words = 20_000
		for i := range words {
			j.append(guest.FrameStdout, fmt.Appendf(nil, "%05d ", i))
			*now = now.Add(gap)
		}
		for i := range words {
			r := j.attach(guest.AttachRequest{KeptOnly: true, Since: &guest.Moment{At: new(begin.Add(time.Duration(i) * gap))}})
			if first := int(r.at / 6); first > i || i-first > 40 {
				t.Fatalf("a word each %s: since that of word %d, it begins with word %d", gap, i, first)
			}
			r.leave()
		}
	}
}

// However much and however slowly a command writes, the times take no more than their bound, all of the output that is kept
// is still there, and what is told of its time is wrong by no more than a few of the gaps between two writes.
func TestMarksAreBounded(t *testing.T) {
	j, now := clocked()
	begin := *now
	const lines = 200_000
	for i := range lines {
		j.append(guest.FrameStdout, []byte("0123456789\n"))
		if n := len(j.arrivals.list); n > mostMarks {
			t.Fatalf("%d marks after %d lines", n, i)
		}
		*now = now.Add(time.Second)
	}
	if _, kept := j.sizes(); kept < guest.KeptOutput*9/10 {
		t.Errorf("%d bytes are kept", kept)
	}
	got, dropped := between(j, begin.Add((lines-3600)*time.Second), time.Time{})
	if n := strings.Count(got, "\n"); dropped != 0 || n < 3600 || n > 3600+200 {
		t.Errorf("of the last hour %d lines came; %d dropped", n, dropped)
	}
	if first := j.arrivals.list; len(first) > 1 && first[1].at <= j.begin {
		t.Errorf("marks of what is dropped are kept: %d, where %d is the first byte", first[1].at, j.begin)
	}
	// Of a time before all that is kept, it is told how much is missing.
	if _, dropped := between(j, begin, time.Time{}); dropped != j.begin {
		t.Errorf("%d bytes dropped, want %d", dropped, j.begin)
	}
	j.forget()
	if used := j.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes are still accounted for", used)
	}
}

// Who follows from a time on holds nobody back that writes meanwhile, whatever is kept of before.
func TestFollowingFromATimeHoldsNobodyBack(t *testing.T) {
	j, now := clocked()
	chunk := make([]byte, guest.MaxFrame)
	for range guest.KeptOutput / len(chunk) {
		j.append(guest.FrameStdout, chunk)
	}
	var others sync.WaitGroup
	defer others.Wait()
	var over atomic.Bool
	defer over.Store(true)
	for range 4 { // who look at it all the time: the journal's lock goes from one to the next
		others.Go(func() {
			for !over.Load() {
				j.sizes()
			}
		})
	}
	for range 20_000 {
		*now = now.Add(time.Hour)
		written := make(chan struct{})
		go func() {
			j.append(guest.FrameStdout, chunk)
			close(written)
		}()
		r := j.attach(guest.AttachRequest{Since: &guest.Moment{Ago: time.Minute}})
		select {
		case <-written:
		case <-time.After(10 * time.Second):
			t.Fatal("the writer waits for a reader that wants nothing of what is kept")
		}
		r.leave()
	}
}
