package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Two runs, as go test -json tells them: TestReal runs in the second, TestRoot in none.
const first = `
{"Action":"start","Package":"x"}
{"Action":"run","Package":"x","Test":"TestGood"}
{"Action":"output","Package":"x","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"x","Test":"TestGood","Output":"    x_test.go:3: chatter\n"}
{"Action":"output","Package":"x","Test":"TestGood","Output":"    x_test.go:4: REPORT: a lamp went out\n"}
{"Action":"pass","Package":"x","Test":"TestGood"}
{"Action":"output","Package":"x","Test":"TestBad","Output":"=== RUN   TestBad\n"}
{"Action":"output","Package":"x","Test":"TestBad","Output":"    x_test.go:5: broken\n"}
{"Action":"output","Package":"x","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"x","Test":"TestBad"}
{"Action":"output","Package":"x","Test":"TestReal","Output":"    x_test.go:7: needs BANGER_TEST_REAL=1\n"}
{"Action":"output","Package":"x","Test":"TestReal","Output":"--- SKIP: TestReal (0.00s)\n"}
{"Action":"skip","Package":"x","Test":"TestReal"}
{"Action":"output","Package":"x","Test":"TestRoot/sub","Output":"    x_test.go:9: needs root: not root\n"}
{"Action":"output","Package":"x","Test":"TestRoot/sub","Output":"    --- SKIP: TestRoot/sub (0.00s)\n"}
{"Action":"skip","Package":"x","Test":"TestRoot/sub"}
{"Action":"output","Package":"x","Test":"TestPanics","Output":"panic: oh\n"}
{"Action":"output","Package":"x","Output":"FAIL\tx\t0.1s\n"}
{"Action":"fail","Package":"x"}
{"ImportPath":"y","Action":"build-output","Output":"y.go:1: syntax error\n"}
{"Action":"output","Package":"z","Output":"PASS\n"}
{"Action":"output","Package":"z","Output":"ok  \tz\t0.2s\n"}
{"Action":"pass","Package":"z"}
`

const second = `
{"Action":"output","Package":"x","Test":"TestReal","Output":"--- PASS: TestReal (0.00s)\n"}
{"Action":"pass","Package":"x","Test":"TestReal"}
go: a word of go itself
`

func play(t *testing.T, p *printer, events string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(events)) {
		if err := p.line([]byte(strings.TrimSuffix(line, "\n"))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrinter(t *testing.T) {
	var out, record bytes.Buffer
	play(t, newPrinter(&out, json.NewEncoder(&record), false), first+strings.TrimPrefix(second, "\n"))
	// TestPanics has no end of its own: its words come when its package ends.
	want := "    x_test.go:5: broken\n--- FAIL: TestBad (0.00s)\nFAIL\tx\t0.1s\npanic: oh\ny.go:1: syntax error\nok  \tz\t0.2s\ngo: a word of go itself\n"
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	play(t, newPrinter(&out, json.NewEncoder(&record), true), first)
	for _, words := range []string{"chatter", "=== RUN   TestBad", "--- SKIP: TestReal", "PASS\n", "panic: oh"} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("with -v: no %q in\n%s", words, out.String())
		}
	}
}

func TestReport(t *testing.T) {
	var record bytes.Buffer
	for _, run := range []string{first, second, first} {
		play(t, newPrinter(&bytes.Buffer{}, json.NewEncoder(&record), false), run)
	}
	file := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(file, record.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := report(&out, file); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), strings.Repeat("x TestGood: a lamp went out\n", 2)+"x TestRoot/sub: x_test.go:9: needs root: not root\n3 tests ran, 1 were skipped\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What was skipped for a reason is found by it, whole tests by their parts; where nothing was, that is said.
func TestSkipped(t *testing.T) {
	var record bytes.Buffer
	play(t, newPrinter(&bytes.Buffer{}, json.NewEncoder(&record), false), first)
	file := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(file, record.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{"BANGER_TEST_REAL": "^(TestReal)$\n", "needs root": "^(TestRoot)$\n", "needs ": "^(TestReal|TestRoot)$\n", "rain": ""} {
		var out bytes.Buffer
		if err := skipped(&out, file, words); out.String() != want || (err == nil) != (want != "") {
			t.Errorf("skipped for %q: %q, %v, want %q", words, out.String(), err, want)
		}
	}
}
