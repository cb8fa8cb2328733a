package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAgain(t *testing.T) {
	fail := func(test string) string { return `{"Action":"fail","Package":"x","Test":"` + test + "\"}\n" }
	const end = `{"Action":"fail","Package":"x"}`
	for _, c := range []struct {
		what, events string
		want         []test
	}{
		{"the leaf", fail("TestA/b") + fail("TestA") + end, []test{{"x", "TestA/b"}}},
		{"two", fail("TestA") + fail("TestAB") + end, []test{{"x", "TestA"}, {"x", "TestAB"}}},
		{"too many", fail("TestA") + fail("TestB") + fail("TestC") + fail("TestD") + end, nil},
		{"many below one", fail("TestA/b/1") + fail("TestA/b/2") + fail("TestA/b/3") + fail("TestA/b/4") + fail("TestA/b") + fail("TestA/c") + fail("TestA") + end, []test{{"x", "TestA/b"}, {"x", "TestA/c"}}},
		{"a panic", `{"Action":"output","Package":"x","Test":"TestA","Output":"panic: oh\n"}` + "\n" + fail("TestA") + end, []test{{"x", ""}}},
		{"an end without a test's", end, []test{{"x", ""}}},
		{"no build", `{"Action":"fail","Package":"x","FailedBuild":"x"}`, nil},
		{"nothing", `{"Action":"pass","Package":"x","Test":"TestA"}`, nil},
	} {
		p := newPrinter(&bytes.Buffer{}, json.NewEncoder(&bytes.Buffer{}), false)
		play(t, p, c.events)
		if got := p.failed.again(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestSum(t *testing.T) {
	p := newPrinter(&bytes.Buffer{}, json.NewEncoder(&bytes.Buffer{}), true)
	play(t, p, first)
	for range sumTests {
		p.failed.note(event{Action: "fail", Package: "y", Test: "TestMany" + strings.Repeat("y", len(p.failed.of("y").tests))})
	}
	var out bytes.Buffer
	p.failed.sum(&out)
	if got := out.String(); !strings.HasPrefix(got, "== failed: x TestBad\n   x_test.go:5: broken\n== failed: y TestMany\n") || !strings.HasSuffix(got, "\n== failed: 1 more\n") {
		t.Error(got)
	}
	long := "=== RUN   TestA\n" + strings.Repeat("    a.go:1: "+strings.Repeat("w", 2*sumWidth)+"\n", 9) + "more\n"
	if got := lastWords(long); len(got) != sumLines || len([]rune(got[0])) > sumWidth+1 || !strings.HasPrefix(got[0], "a.go:1: w") {
		t.Errorf("%q", got)
	}
	if got := lastWords("panic: oh\n"); len(got) != 1 || got[0] != "panic: oh" {
		t.Errorf("%q", got)
	}
}

func TestOnly(t *testing.T) {
	got := only([]string{"-p", "1", "-timeout", "45m", "./a", "./b", "-lab"}, test{"banger/b", "TestA/b(c)"})
	if want := `-p 1 -timeout 45m -count=1 -run ^TestA$/^b\(c\)$ banger/b -lab`; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", strings.Join(got, " "), want)
	}
}

// By the real go test: chance passes the second time and is said, a defect fails both times.
func TestRecordAll(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module m\n")
	write("m_test.go", `package m

import ("os"; "testing")

func TestChance(t *testing.T) {
	if os.Mkdir("once", 0o700) == nil { t.Error("the first time") }
}

func TestDefect(t *testing.T) {
	if os.Getenv("BANGER_TEST_DEFECT") != "" { t.Error("always") }
}
`)
	t.Chdir(dir)
	if err := recordAll("record", []string{"./..."}); err == nil {
		t.Error("a failure passes unasked")
	}
	if err := os.Remove("once"); err != nil {
		t.Fatal(err)
	}
	if err := recordAll("record", []string{"-again", "./..."}); err != nil {
		t.Error(err)
	}
	var said bytes.Buffer
	if err := report(&said, "record"); err != nil || !strings.HasPrefix(said.String(), "m TestChance failed, and passed") {
		t.Errorf("%q, %v", said.String(), err)
	}
	t.Setenv("BANGER_TEST_DEFECT", "1")
	if err := recordAll("record", []string{"-again", "./..."}); err == nil {
		t.Error("a defect passes")
	}
}
