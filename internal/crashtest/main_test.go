package crashtest

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"testing"
)

// results are those of this run.
var results struct {
	sync.Mutex
	all      []Result
	missed   []string // points of a first run that no later one passed
	passedBy int      // points that were left out
	skipped  int      // cases of a crash during the recovery that were left out
}

func note(t *testing.T, r Result) {
	results.Lock()
	defer results.Unlock()
	r.Where, r.Test = FakeKernel, t.Name()
	results.all = append(results.all, r)
}

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // many short lives
	flag.Parse()
	_ = flag.Set("rapid.nofailfile", "true") // the seed is printed; nothing is left in the source
	code := m.Run()
	removeTemplate()
	var sum Result
	for _, r := range results.all {
		sum.Add(r)
	}
	if sum.Cases > 0 {
		fmt.Printf("crash cases on the fake kernel: %d, converged %d, leaked %d, lost %d\n", sum.Cases, sum.Converged, sum.Leaked, sum.Lost)
	}
	if results.skipped > 0 {
		fmt.Printf("left out: %d cases of a second crash (%s=1 runs them)\n", results.skipped, allEnv)
	}
	if results.passedBy > 0 {
		fmt.Printf("left out: %d points\n", results.passedBy)
	}
	if n := len(results.missed); n > 0 {
		fmt.Printf("not met again: %d points %q\n", n, results.missed)
		if n*50 > sum.Cases {
			fmt.Println("that is too many")
			code = 1
		}
	}
	if err := Append(results.all); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
