package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"banger/internal/crashtest"
	"banger/internal/testhost"
)

// choice says which points of each operation are taken. All would be too many for each run, so that the offset moves with
// the commit: every point has its turn.
type choice struct {
	every  int // one in so many
	offset int // which one
}

// everyEnv says how thin the matrix is: N takes every N-th point, 1 all of them. What is left out is printed.
const (
	everyEnv     = "BANGER_CRASH_EVERY"
	defaultEvery = 4 // a case takes a boot as often as not
)

// othersEvery says how much thinner it is for those who die without the daemon.
const othersEvery = 4

func newChoice(t *testing.T) choice {
	t.Helper()
	c := choice{every: defaultEvery}
	if text := os.Getenv(everyEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: want a number of at least 1", everyEnv, text)
		}
		c.every = n
	}
	repo := ""
	if os.Getenv(crashtest.OffsetEnv) == "" {
		repo = testhost.Repo(t)
	}
	var err error
	if c.offset, err = crashtest.Offset(repo); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c choice) String() string {
	return fmt.Sprintf("%s=%d %s=%d", everyEnv, c.every, crashtest.OffsetEnv, c.offset)
}

// A turn is how a point is taken: the daemon dies there, and then perhaps somebody else does in a case of its own.
type turn struct {
	point
	victim victim // or nobody
}

// of are the turns of an operation's points, the how-manieth it is: operations that pass the same are not cut off at the same.
// Each has one turn at least; what runs after process:made is the jailer yet, where there is one, so that this point is always
// taken, and its VMM's death as well.
func (c choice) of(nth int, o operation, points []point) (turns []turn) {
	every, offset := c.every, c.offset+nth
	if o.slow && every > 1 {
		every *= 2
	}
	first := (every - offset%every) % every
	if len(points) > 0 {
		first %= len(points)
	}
	for i, p := range points {
		launched := strings.HasSuffix(p.label, ":process:made")
		if (i-first)%every != 0 && !launched {
			continue
		}
		t := turn{point: p}
		round := (i + offset) / every
		switch {
		case launched:
			t.victim = theVMM
		case round%othersEvery != 1:
		case o.library:
			t.victim = theClient
		case !o.slow: // its client is not needed any more
			t.victim = victims[round/othersEvery%len(victims)]
		}
		turns = append(turns, t)
	}
	return turns
}

// Over all offsets each point is taken, and with each victim that there is; no operation is ever without a point.
func TestChoice(t *testing.T) {
	for n := range 40 {
		var points []point
		for i := range n {
			points = append(points, point{"stop:step" + strconv.Itoa(i) + ":before", 1})
		}
		for _, every := range []int{1, 2, 4, 15} {
			taken := map[turn]bool{}
			for offset := range 200 {
				turns := choice{every, offset}.of(0, operation{}, points)
				if len(turns) == 0 && n > 0 || len(turns) > n/every+1 {
					t.Fatalf("of %d points %d are taken, with %v", n, len(turns), choice{every, offset})
				}
				for _, is := range turns {
					taken[is] = true
				}
			}
			for _, p := range points {
				for _, v := range append(slices.Clone(victims), "") {
					if !taken[turn{p, v}] {
						t.Errorf("of %d points every %dth: %v with %q is never taken", n, every, p, v)
					}
				}
			}
		}
	}
	start := []point{{"start:a:before", 1}, {"start:process:made", 1}, {"start:b:before", 1}}
	for offset := range 8 {
		if turns := (choice{8, offset}).of(0, operation{}, start); !slices.Contains(turns, turn{start[1], theVMM}) {
			t.Errorf("the VMM does not die where it is launched: %v", turns)
		}
	}
}
