package crashtest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// uncrashed are the kinds of acts that no operation here passes, with the reason.
var uncrashed = map[string]string{
	"lock":        "the host's real daemon does it around what is assembled here: internal/e2e's TestMatrix passes it on the real kernel",
	"lock.pid":    "likewise",
	"socket":      "likewise",
	"socket.mode": "likewise",

	"socket.remove": "only where a stale one is left: who serves one here has it in the run directory, which goes with each run",

	"daemon": "the CLI's, which starts the daemon",

	"log": "a file for the output of a real program: internal/e2e's TestMatrix passes its making by the daemon",

	"log.cut":         "only a log that has become too long, and nobody here writes so much",
	"log.old":         "likewise",
	"log.temp":        "likewise",
	"log.temp.remove": "likewise",

	"ballast": "made by the first daemon of a world, which is not crashed",

	"ballast.remove": "only where a write of the database finds its disk full, and that of a test is not",

	"database.index":        "only where a database has a -wal file and no -shm file beside it: a daemon that dies leaves both",
	"database.index.remove": "likewise",

	"jail":                 "Firecracker's, and no driver here has a jail, a configuration in a file or a proof",
	"jail.disk":            "likewise",
	"jail.node":            "likewise",
	"jail.owner":           "likewise",
	"jail.remove":          "likewise",
	"jail.shared":          "likewise",
	"configuration":        "likewise",
	"configuration.remove": "likewise",
	"socket.link":          "likewise",
	"proof":                "likewise",
	"proof.remove":         "likewise",

	"findings": "what a real VMM was found to be able to: no driver here finds out anything",

	"process.quit": "only where a guest does not power off by itself, and each here does",
	"process.end":  "likewise",

	"bridge.address":        "a step of the real bridge, which bridgeNet makes in one",
	"bridge.address.remove": "likewise",
	"bridge.up":             "likewise",
	"forwarding":            "likewise",
	"ipv6-off":              "likewise",

	"resolver": "the real bridge's name server, which bridgeNet has none of",

	"tap.alias":     "a step of the real tap device, which bridgeNet makes in two: it is there, and it is a port",
	"tap.card":      "likewise",
	"tap.down":      "likewise",
	"tap.flood":     "likewise",
	"tap.isolation": "likewise",
	"tap.learning":  "likewise",
	"tap.owner":     "likewise",
	"tap.passing":   "likewise",
	"tap.up":        "likewise",

	"cgroup.controller": "a step of real cgroups, which are made in one here",
	"cgroup.limit":      "likewise",

	"loop.keep":   "a step of real devices, which need none here",
	"node":        "likewise",
	"node.remove": "likewise",

	"overlay.temp.remove":   "only where filling the temporary file fails, or one is found whose writer died: a daemon's start clears those away before (scrap.remove)",
	"work-disk.temp.remove": "likewise",

	"probe.temp.remove": "no probe makes such a file: file.Remove looks for one in the place of any that it removes",
}

// kindsPassed gathers the objects of the acts that the operations pass, and those of the recoveries after them. Some pass
// them in what stands for a driver here, which has the points of the real one.
type kindsPassed struct {
	mu    sync.Mutex
	kinds map[string]bool
	ended int // operations that were crashed to their end
}

// newKindsPassed holds, when the test and all of its parts have ended, the kinds against those of the source.
func newKindsPassed(t *testing.T) *kindsPassed {
	k := &kindsPassed{kinds: map[string]bool{}}
	t.Cleanup(func() {
		if want := len(operations()); k.ended < want || everyPoint > 1 {
			t.Logf("of %d operations %d were crashed to their end, at each %d. point: too little to say which acts none passes", want, k.ended, everyPoint)
			return
		}
		found, _ := readSources(t).kinds() // TestKindsAreFound tells the errors
		for _, kind := range slices.Sorted(maps.Keys(found)) {
			if !k.kinds[kind] && uncrashed[kind] == "" {
				t.Errorf("%s: no operation passes an act on %q: add one to operations(), or say in uncrashed why not", found[kind], kind)
			}
			if k.kinds[kind] && uncrashed[kind] != "" {
				t.Errorf("uncrashed[%q] excuses nothing: an operation passes it", kind)
			}
		}
	})
	return k
}

func (k *kindsPassed) add(points []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range points {
		// Only what was done counts: an act that is passed and comes to nothing has no other point than the one before it.
		if parts := strings.Split(labelOf(p), ":"); len(parts) == 3 && parts[2] != "before" {
			k.kinds[parts[1]] = true
		}
	}
}

func (k *kindsPassed) whole() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended++
}

// TestKindsAreFound holds that each act's object can be told from the source, and that the list names none that is gone.
func TestKindsAreFound(t *testing.T) {
	found, errs := readSources(t).kinds()
	for _, err := range errs {
		t.Error(err)
	}
	for kind := range uncrashed {
		if found[kind] == "" {
			t.Errorf("there is no act on %q any more: delete it from uncrashed", kind)
		}
	}
	if len(found) < 50 {
		t.Errorf("there are %d kinds of acts: this test looks at too little", len(found))
	}
}

// TestKindsAreFollowed gives the test above what it is to follow, and what it cannot.
func TestKindsAreFollowed(t *testing.T) {
	for body, want := range map[string]string{
		`func f() { act.Do(ctx, "x", g) }`:                                                                                            "x",
		`func f() { act.Record(ctx, "x"+".remove", g) }`:                                                                              "x.remove",
		`const x = "y"; func f() { act.Do(ctx, x, g) }`:                                                                               "y",
		`func f(what string) { act.Do(ctx, what+".temp", g) }; func h() { f("a"); f("b") }`:                                           "a.temp b.temp",
		`func f(_ int, a, b string) { act.Do(ctx, b, g) }; func h(c string) { f(1, "a", c) }; func i() { h("z") }`:                    "z",
		`func (d d) f(what string) { act.Do(ctx, what, g) }; func h() { d.f("m") }`:                                                   "m",
		`func f() { for _, d := range []struct{ what, path string }{{"a", "p"}, {path: "q", what: "b"}} { act.Do(ctx, d.what, g) } }`: "a b",
		`type k struct { n int; what string }; func f(x k) { act.Do(ctx, x.what, g) }; func h() { f(k{1, "s"}) }`:                     "s",
		`func f() { act.Do(ctx, name(), g) }`:                                                                                         "?",
		`func f(what string) { act.Do(ctx, what, g) }`:                                                                                "?",
		`func (d d) F(what string) { act.Do(ctx, what, g) }; func h() { d.F("m") }`:                                                   "?",
		`func f() { x := "y"; act.Do(ctx, x, g) }`:                                                                                    "?",
	} {
		s := newSources()
		if err := s.add("banger/internal/x", "x.go", "package x\nimport \"banger/internal/act\"\n"+strings.ReplaceAll(body, "; func", "\nfunc")); err != nil {
			t.Fatal(err)
		}
		found, errs := s.kinds()
		got := strings.Join(slices.Sorted(maps.Keys(found)), " ")
		if len(errs) > 0 {
			got = "?"
		}
		if got != want {
			t.Errorf("%s: %q, want %q (%v)", body, got, want, errs)
		}
	}
}
