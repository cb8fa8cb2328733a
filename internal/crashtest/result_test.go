package crashtest

import (
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
