package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/crashtest"
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

func TestPromised(t *testing.T) {
	results := func(fake, host, lab int) (all []crashtest.Result) {
		for where, n := range map[string]int{crashtest.FakeKernel: fake, crashtest.HostKernel: host, crashtest.InLab: lab} {
			if n > 0 { // of two tests
				all = append(all, crashtest.Result{Where: where, Cases: n - 1}, crashtest.Result{Where: where, Cases: 1})
			}
		}
		return all
	}
	for _, c := range []struct {
		all  []crashtest.Result
		want []string // none: it is kept
	}{
		{results(500, 60, 60), nil},
		{results(499, 60, 60), []string{"499 crash cases ran on the fake kernel", "at least 500"}},
		{results(500, 59, 60), []string{"59 crash cases ran on the host's kernel, QEMU", "at least 60"}},
		{results(500, 60, 0), []string{"no crash case ran on the lab, Firecracker", "at least 60"}},
	} {
		err := kept(c.all)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%v, want %q", err, c.want)
		}
		for _, w := range c.want {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("%v, want %q", err, w)
			}
		}
	}
}

// A table with too little in it is not written.
func TestPromisedBeforeThePage(t *testing.T) {
	dir := t.TempDir()
	results, page := filepath.Join(dir, "results"), filepath.Join(dir, "page")
	for path, text := range map[string]string{results: `{"where":"fake kernel","cases":1,"converged":1}`, page: begin + end} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := tell(results, page, true); err == nil {
		t.Error("too few cases are taken")
	}
	if b, err := os.ReadFile(page); err != nil || string(b) != begin+end {
		t.Errorf("the page is %q, %v", b, err)
	}
	if err := tell(results, page, false); err != nil {
		t.Error(err)
	}
}
