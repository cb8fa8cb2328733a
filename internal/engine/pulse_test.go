package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

func TestPulse(t *testing.T) {
	const answers, halted, last = 'a', 'h', 'l' // and 's' for silent
	for in, lostAt := range map[string]int{     // 0 = never
		"aaaaaaaa":                0,
		"ss" + "a" + "ss" + "a":   0, // it was only slow
		"sss":                     mostMissed,
		"asssa":                   mostMissed + 1,
		"l":                       1, // it said that it is at its end
		"al":                      2,
		strings.Repeat("h", 1000): 0, // paused for days
		"ssh" + "ss":              0, // it was paused meanwhile: nobody knows what it owes
		"hsss":                    mostMissed + 1,
	} {
		var p pulse
		at := 0
		for i, c := range in {
			if p.lost(c == answers, c == halted, c == last) && at == 0 {
				at = i + 1
			}
		}
		if at != lostAt {
			t.Errorf("%.20s: lost after %d, want %d", in, at, lostAt)
		}
	}
}

// A guest that died while its VMM lives holds nobody who follows a command in it; one that is paused does.
func TestAGuestThatDiedIsNoticed(t *testing.T) {
	for _, how := range []string{"it halts", "it hangs", "it is paused, then halts"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			d.pulseTimes = pulseTimes{every: time.Millisecond, answer: 50 * time.Millisecond, vmm: 10 * time.Second}
			r := d.run("web", false)
			answers, stop := d.WhileAnswers(t.Context(), "web")
			defer stop()
			paused := how != "it halts" && how != "it hangs"
			if paused {
				_, err := d.Pause(t.Context(), "web")
				must(t, err)
				before := w.turns.Load()
				asks := func() bool { return w.turns.Load() > before+2*mostMissed }
				for end := time.Now().Add(time.Minute); !asks() && time.Now().Before(end); time.Sleep(time.Millisecond) { // polls: nothing tells of it
				}
				if !asks() || answers.Err() != nil {
					t.Fatalf("paused: asked %d times, %v", w.turns.Load()-before, answers.Err())
				}
			}
			w.host.Rule(fake.Rules{Dead: func(vmm.Config) bool { return true }})
			if how == "it halts" {
				f, err := os.OpenFile(r.Runtime.LogPath, os.O_APPEND|os.O_WRONLY, 0)
				must(t, err)
				_, err = fmt.Fprintln(f, "[   20.1] reboot: System halted")
				must(t, errors.Join(err, f.Close()))
			}
			if paused {
				_, err := d.Resume(t.Context(), "web")
				must(t, err)
			}
			select {
			case <-answers.Done():
			case <-time.After(time.Minute):
				t.Fatal("it is not noticed")
			}
			if v, err := d.Store.VM(t.Context(), r.ID); err != nil || !d.Observe(v).Alive {
				t.Errorf("the VM itself is left as it is: %+v, %v", v, err)
			}
		})
	}
}

// Who comes to follow a command when the daemon is about to end is not waited for: its streams end with the daemon.
func TestNobodyIsWatchedAtTheEnd(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	d.run("web", false)
	d.Close()
	answers, stop := d.WhileAnswers(t.Context(), "web")
	defer stop()
	if !errors.Is(context.Cause(answers), errStopping) {
		t.Errorf("%v", context.Cause(answers))
	}
}

// A guest that thrashes answers no hello for minutes. As long as anything comes from it, nobody's command is cut off.
func TestAGuestThatOnlyTalksLives(t *testing.T) {
	for _, how := range []string{"it writes", "it answers with errors"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.start()
			// What the guest writes has to come through in one such time of three, on however busy a host.
			d.pulseTimes = pulseTimes{every: time.Millisecond, answer: time.Second, vmm: 10 * time.Second}
			d.run("web", false)
			quiet := make(chan struct{})
			w.host.Rule(fake.Rules{Exec: func(ctx context.Context, e fake.Exec) fake.ExecExit {
				for {
					select {
					case <-quiet:
						<-ctx.Done()
						return fake.ExecExit{}
					default:
						_, _ = fmt.Fprintln(e.Stdout, "swap, swap")
					}
				}
			}})
			c, err := d.Agent(t.Context(), "web")
			must(t, err)
			if how == "it writes" {
				conn, err := c.Exec(t.Context(), guest.ExecRequest{Argv: []string{"make"}})
				must(t, err)
				defer func() { _ = conn.Close() }()
				_, err = io.ReadFull(conn, make([]byte, 1)) // it runs by this rule, and not by the next
				must(t, err)
				go func() { _, _ = io.Copy(io.Discard, conn) }()
			}
			answers, stop := d.WhileAnswers(t.Context(), "web")
			defer stop()
			asked := make(chan struct{}, 1000)
			hears := func(vmm.Config) bool {
				select {
				case asked <- struct{}{}:
				default:
				}
				return true
			}
			if how == "it writes" {
				w.host.Rule(fake.Rules{Dead: hears})
			} else {
				w.host.Rule(fake.Rules{Hello: func(c vmm.Config) error { hears(c); return errors.New("no memory") }})
			}
			for range mostMissed + 2 {
				select {
				case <-asked:
				case <-answers.Done():
				}
			}
			if answers.Err() != nil {
				t.Fatalf("it is taken for dead: %v", context.Cause(answers))
			}
			close(quiet)
			w.host.Rule(fake.Rules{Dead: hears})
			select {
			case <-answers.Done():
			case <-time.After(time.Minute):
				t.Fatal("that it fell silent is not noticed")
			}
		})
	}
}
