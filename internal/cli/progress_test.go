package cli

import (
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// clock is a time that stands still.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func testProgress(live, color bool) (*progress, *strings.Builder, *clock) {
	var out strings.Builder
	c := &clock{time.Unix(0, 0)}
	return newProgress(&out, live, color, c.now), &out, c
}

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frame++
	p.show()
}

func began(stage string) vm.Event { return vm.Event{Kind: "stage", Stage: stage, Status: "begin"} }

func ended(stage, status string, took time.Duration) vm.Event {
	return vm.Event{Kind: "stage", Stage: stage, Status: status, ElapsedMs: took.Milliseconds()}
}

func wantOutput(t *testing.T, out *strings.Builder, want string) {
	t.Helper()
	if got := out.String(); got != want {
		t.Errorf("shown: %q\nwant:  %q", got, want)
	}
	out.Reset()
}

const erase = "\r\x1b[K"

func TestProgressOnATerminal(t *testing.T) {
	p, out, c := testProgress(true, false)
	p.event(began("disk"))
	p.event(ended("disk", "end", 20*time.Millisecond))
	p.event(began("boot"))
	c.advance(400 * time.Millisecond)
	p.tick()
	wantOutput(t, out, "") // patience
	c.advance(200 * time.Millisecond)
	p.tick()
	wantOutput(t, out, "✓ disk 0.0s\n"+spinner[2]+" boot 0.6s")
	c.advance(time.Second)
	p.tick()
	wantOutput(t, out, erase+spinner[3]+" boot 1.6s")
	p.event(ended("boot", "end", 1600*time.Millisecond))
	wantOutput(t, out, erase+"✓ boot 1.6s\n")
	p.event(began("agent"))
	wantOutput(t, out, spinner[3]+" agent 0.0s")
	p.finish(true) // the command's own output follows: nothing may stand on the line
	wantOutput(t, out, erase+"✓ agent 0.0s\n")
	p.event(began("late"))
	p.finish(false)
	wantOutput(t, out, "")
}

func TestProgressOfSomethingQuickIsSilent(t *testing.T) {
	for _, live := range []bool{true, false} {
		p, out, c := testProgress(live, true)
		p.event(began("boot"))
		p.tick()
		c.advance(100 * time.Millisecond)
		p.event(ended("boot", "end", 84*time.Millisecond))
		p.finish(true)
		wantOutput(t, out, "")
	}
}

// What somebody should know is shown, however soon all is over.
func TestProgressTellsWhatIsNoMatterOfTime(t *testing.T) {
	for _, live := range []bool{true, false} {
		p, out, c := testProgress(live, false)
		p.event(vm.Event{Kind: "note", Stage: "disk", Text: "a detail"})
		c.advance(10 * time.Millisecond)
		p.event(vm.Event{Kind: "note", Name: "web", Text: "web gets qemu"})
		p.finish(true)
		if got := out.String(); !strings.Contains(got, "banger: web gets qemu\n") {
			t.Errorf("shown: %q", got)
		}
	}
}

func TestProgressWithoutATerminal(t *testing.T) {
	p, out, c := testProgress(false, false)
	p.event(began("image"))
	c.advance(4 * time.Second)
	p.tick()
	wantOutput(t, out, "")
	c.advance(time.Second)
	p.tick()
	p.tick()
	wantOutput(t, out, "banger: image …\n") // it takes long: say once that it goes on
	p.event(vm.Event{Kind: "note", Stage: "image", Text: "a detail"})
	wantOutput(t, out, "banger: image … a detail\n")
	c.advance(60 * time.Second)
	p.event(ended("image", "end", 65*time.Second))
	wantOutput(t, out, "banger: image … 1m05s\n")
	p.event(vm.Event{Kind: "note", Text: "a word"})
	wantOutput(t, out, "banger: a word\n")
	p.event(began("boot"))
	p.event(ended("boot", "failed", 3*time.Second))
	wantOutput(t, out, "banger: boot failed after 3.0s\n")
	p.event(began("cut off"))
	p.finish(false)
	wantOutput(t, out, "")
}

func TestProgressOfSeveralVMs(t *testing.T) {
	p, out, c := testProgress(true, false)
	p.named = true
	for _, name := range []string{"one", "two"} {
		e := began("boot")
		e.Name = name
		p.event(e)
	}
	c.advance(time.Second)
	p.tick()
	wantOutput(t, out, spinner[1]+" one: boot 1.0s two: boot 1.0s")
}

// TestProgressIsHarmless: texts come from build logs and guests.
func TestProgressIsHarmless(t *testing.T) {
	p, out, c := testProgress(true, false)
	p.width = func() int { return 20 }
	p.event(began("image"))
	c.advance(time.Second)
	p.event(vm.Event{Kind: "note", Stage: "image", Text: "\x1b[2J\x07evil\r\nand quite a long line"})
	wantOutput(t, out, spinner[0]+" image 1.0s  [2Je…")
}

func TestColor(t *testing.T) {
	p, out, c := testProgress(true, true)
	c.advance(time.Second)
	p.event(ended("boot", "end", time.Second))
	if !strings.Contains(out.String(), "\x1b[32m✓\x1b[0m") {
		t.Errorf("no colour: %q", out.String())
	}
}

func TestProgressOfAStageThatBeganUnseen(t *testing.T) {
	p, out, c := testProgress(true, false)
	p.waiting("starting web")
	c.advance(time.Second)
	p.tick()
	wantOutput(t, out, spinner[1]+" starting web 1.0s")
	p.event(ended("boot", "end", 900*time.Millisecond))
	wantOutput(t, out, erase+"✓ boot 0.9s\n"+spinner[1]+" starting web 1.0s")
	p.finish(true)
	wantOutput(t, out, erase)
}

// TestProgressSays: what cannot wait stands above the live line, however short the command is.
func TestProgressSays(t *testing.T) {
	p, out, c := testProgress(true, false)
	p.say("banger: x is left out")
	wantOutput(t, out, "banger: x is left out\n")
	p.event(began("copy"))
	_, _ = p.moved.Write(make([]byte, 3<<20))
	c.advance(time.Second)
	p.tick()
	wantOutput(t, out, spinner[1]+" copy 1.0s  3M")
	p.say("banger: y is left out")
	wantOutput(t, out, erase+"banger: y is left out\n")
	p.tick()
	wantOutput(t, out, spinner[2]+" copy 1.0s  3M")
	p.finish(false)
	wantOutput(t, out, erase)
	p.say("banger: z is left out")
	wantOutput(t, out, "banger: z is left out\n")
}

// TestProgressSettles: stages of one wait are over before the next thing begins.
func TestProgressSettles(t *testing.T) {
	p, out, c := testProgress(true, false)
	p.waiting("waiting for web")
	p.event(began("agent"))
	c.advance(time.Second)
	p.tick()
	wantOutput(t, out, spinner[1]+" agent 1.0s")
	p.settle(true)
	wantOutput(t, out, erase+"✓ agent 1.0s\n")
	p.tick()
	wantOutput(t, out, "")
	p.event(began("copy"))
	c.advance(time.Second)
	p.tick()
	wantOutput(t, out, spinner[2]+" copy 0.0s"+erase+spinner[3]+" copy 1.0s")
	p.settle(false)
	wantOutput(t, out, erase)
}
