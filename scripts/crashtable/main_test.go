package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	all, err := read([]byte(`{"where":"a","test":"TestX","operation":"run","cases":2,"converged":2}
{"where":"a","test":"TestY","operation":"run","cases":3,"leaked":1}
{"where":"b","test":"TestX","operation":"stop","cases":1,"converged":1}
{"where":"a","test":"TestY","operation":"run","cases":3,"converged":3}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lines(all), "crash cases on the a: 5, converged 5, leaked 0, lost 0\ncrash cases on the b: 1, converged 1, leaked 0, lost 0\n"; got != want {
		t.Errorf("sums:\n%swant\n%s", got, want)
	}
	page, err := replace("head\n"+begin+"old\n"+end+"tail\n", table(all))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"head\n", "| a | run | 5 | 5 | 0 | 0 |\n| **a** | **all** | 5 | 5 | 0 | 0 |\n", "| b | stop | 1 | 1 | 0 | 0 |", "tail\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
	if strings.Contains(page, "old") {
		t.Error("the old table is still there")
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{"", "{", `{"cases":2,"converged":1}`, `{"cases":1,"converged":1,"leaked":1}`, `{"cases":1,"converged":1,"lost":1}`} {
		if _, err := read([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if _, err := replace("no marks", "x"); err == nil {
		t.Error("a page without marks is taken")
	}
}
