package vm

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"db", "web", "web-1", "database", "x"}
	for word, want := range map[string]string{
		"wbe": "web", "web1": "web", "web-2": "web-1", "databse": "database", "dtabas": "database", "dbase": "", "": "", "y": "", "ci": "", "memory": "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("by %q %q is meant, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"memry", "memory", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"wbe", "web", 1}, {"abcd", "badc", 2}} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
