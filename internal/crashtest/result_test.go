package crashtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What failed once is run again by gotest, alone, and adds to the same file.
func TestResultOfTheLastRunCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	t.Setenv(ResultsEnv, path)
	case1 := Result{Where: "a", Test: "TestM/1", Operation: "run", Cases: 1, Leaked: 1}
	case2 := Result{Where: "a", Test: "TestM/2", Operation: "run", Cases: 1, Converged: 1}
	elsewhere := Result{Where: "b", Test: "TestM/1", Operation: "run", Cases: 1, Converged: 1}
	again := Result{Where: "a", Test: "TestM/1", Operation: "run", Cases: 1, Converged: 1}
	for _, all := range [][]Result{{case1, case2}, {elsewhere}, {again}} {
		if err := Append(all); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadResults(text); err != nil || !slices.Equal(got, []Result{again, case2, elsewhere}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A matrix that is run again as a whole need not meet the same points.
func TestResultOfAWholeRunCountsAlone(t *testing.T) {
	var text []byte
	for _, r := range []Result{
		{Where: "a", Test: "TestM", Operation: "run", Whole: true},
		{Where: "a", Test: "TestM/1", Operation: "run", Cases: 1, Leaked: 1},
		{Where: "a", Test: "TestM/1", Operation: "stop", Cases: 1, Converged: 1},
		{Where: "b", Test: "TestM/1", Operation: "run", Cases: 1, Converged: 1},
		{Where: "a", Test: "TestM", Operation: "run", Whole: true},
		{Where: "a", Test: "TestM/2", Operation: "run", Cases: 1, Converged: 1},
		{Where: "a", Test: "TestM", Operation: "run"}, // and one of it alone
		{Where: "a", Test: "TestM/2", Operation: "run", Cases: 1, Lost: 1},
	} {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, line...), '\n')
	}
	want := []Result{
		{Where: "a", Test: "TestM", Operation: "run"},
		{Where: "a", Test: "TestM/1", Operation: "stop", Cases: 1, Converged: 1},
		{Where: "b", Test: "TestM/1", Operation: "run", Cases: 1, Converged: 1},
		{Where: "a", Test: "TestM/2", Operation: "run", Cases: 1, Lost: 1},
	}
	if got, err := ReadResults(text); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}
