package lab

import (
	"os/exec"
	"strings"
	"testing"
)

// flat writes a tree of results in one line: name=action, with subtests in brackets.
func flat(r *result) string {
	var subs []string
	for _, s := range r.subs {
		subs = append(subs, flat(s))
	}
	inside := strings.Join(subs, " ")
	if r.name == "" {
		return inside
	}
	action := r.action
	if action == "" {
		action = "?"
	}
	if inside != "" {
		inside = "[" + inside + "]"
	}
	return r.name + "=" + action + inside
}

// The input is what test binaries print with -test.v=test2json; ^ stands for the mark (byte 0x16) before framing lines.
func TestResults(t *testing.T) {
	for _, c := range []struct {
		name, printed string
		want          string
		ended         int    // tests of the top that ended
		output        string // of TestA
	}{
		{"nothing", "", "", 0, ""},
		{"pass", "^=== RUN   TestA\n^--- PASS: TestA (0.00s)\n^PASS\n", "TestA=pass", 1, ""},
		{"said", "^=== RUN   TestA\n    a_test.go:1: said\n^--- PASS: TestA (0.00s)\n^PASS\n", "TestA=pass", 1, "    a_test.go:1: said"},
		{"skip", "^=== RUN   TestA\n    a_test.go:1: needs dm: gone\n^--- SKIP: TestA (0.00s)\n^PASS\n", "TestA=skip", 1, "    a_test.go:1: needs dm: gone"},
		{"two", "^=== RUN   TestA\n^--- FAIL: TestA (0.00s)\n^=== RUN   TestB\n^--- PASS: TestB (0.00s)\n^FAIL\n", "TestA=fail TestB=pass", 2, ""},
		{
			"subtests",
			"^=== RUN   TestA\n^=== RUN   TestA/x\n^=== RUN   TestA/y/z\n^--- FAIL: TestA (0.00s)\n^    --- SKIP: TestA/x (0.00s)\n^    --- FAIL: TestA/y/z (0.00s)\n^FAIL\n",
			"TestA=fail[TestA/x=skip TestA/y=?[TestA/y/z=fail]]", 1, "",
		},
		{"parallel", "^=== RUN   TestA\n^=== PAUSE TestA\n^=== RUN   TestB\n^--- PASS: TestB (0.00s)\n^=== CONT  TestA\n^--- PASS: TestA (0.00s)\n^PASS\n", "TestA=pass TestB=pass", 2, ""},
		{"a line like a result", "^=== RUN   TestA\n--- FAIL: TestA (0.00s)\n^--- PASS: TestA (0.00s)\n^PASS\n", "TestA=pass", 1, ""},
		{"died", "^=== RUN   TestA\nsignal: killed\n", "TestA=?", 0, "signal: killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("go", "tool", "test2json", "-p", "pkg")
			cmd.Stdin = strings.NewReader(strings.ReplaceAll(c.printed, "^", "\x16"))
			events, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			ended := 0
			all, err := read(strings.NewReader(string(events)), func(*result) { ended++ })
			if err != nil {
				t.Fatal(err)
			}
			if got := flat(all); got != c.want {
				t.Errorf("results %s, want %s", got, c.want)
			}
			if ended != c.ended {
				t.Errorf("told of %d ends, want %d", ended, c.ended)
			}
			if got := strings.Join(all.of("TestA").output, "\n"); got != c.output {
				t.Errorf("output %q, want %q", got, c.output)
			}
		})
	}
}

func TestReadGarbage(t *testing.T) {
	if _, err := read(strings.NewReader(`{"Action":"run"}{`), nil); err == nil {
		t.Error("half an event is none")
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct{ action, output, want string }{
		{"pass", "", "pass"},
		{"fail", "", "fail"},
		{"", "", "fail"},
		{"skip", "    a_test.go:1: on Tuesdays only", "skip"},
		{"skip", "    a_test.go:1: needs mmdebstrap: program mmdebstrap is missing", "skip"},
		{"skip", "    a_test.go:1: needs dm: no such file", "fail"},
		{"pass", "needs dm: no such file", "pass"},
	} {
		r := &result{action: c.action, output: []string{"first", c.output}}
		if got, why := r.verdict([]string{"kvm", "dm"}); got != c.want || (why != "") != (got != c.action) {
			t.Errorf("verdict on %q with output %q = %q, %q; want %q", c.action, c.output, got, why, c.want)
		}
	}
}

func TestWithout(t *testing.T) {
	for _, tt := range []struct {
		skip string
		done []string
		want string
	}{
		{"", nil, ""}, {"^TestA/b$", nil, "^TestA/b$"}, {"", []string{"TestA", "TestB"}, "^(TestA|TestB)$"},
		{"TestA/b|TestC", []string{"TestD"}, "^(TestD)$|TestA/b|TestC"},
	} {
		if got := without(tt.skip, tt.done); got != tt.want {
			t.Errorf("without(%q, %q) = %q, want %q", tt.skip, tt.done, got, tt.want)
		}
	}
}
