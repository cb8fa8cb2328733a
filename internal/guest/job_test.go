package guest

import "testing"

func TestMatchJob(t *testing.T) {
	all := []string{"3f2a", "3f2abc", "40"}
	for _, c := range []struct {
		id    string
		at, n int
	}{{"40", 2, 1}, {"4", 2, 1}, {"3f2a", 0, 1}, {"3f2ab", 1, 1}, {"3", 0, 2}, {"5", 0, 0}, {"", 0, 0}, {"400", 0, 0}} {
		at, n := MatchJob(all, c.id)
		if n != c.n || n == 1 && at != c.at {
			t.Errorf("%q: %d of %d, want %d of %d", c.id, at, n, c.at, c.n)
		}
	}
}
