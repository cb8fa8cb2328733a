package crashtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
)

// ResultsEnv names a file to which crash tests append what they did, a line of JSON for each Result (make crashtable).
const ResultsEnv = "BANGER_CRASH_RESULTS"

// Places are where crash tests run (Result.Where).
const (
	FakeKernel = "fake kernel"
	HostKernel = "host's kernel, QEMU"
	InLab      = "lab, Firecracker"
)

// Result counts the cases of one operation in one test.
type Result struct {
	Where     string `json:"where"` // one of the places
	Test      string `json:"test"`  // its name, with those of the tests that it is part of
	Operation string `json:"operation"`
	Cases     int    `json:"cases"`
	Converged int    `json:"converged"`
	Leaked    int    `json:"leaked"` // something is there that no record asks for, or is missing that one does
	Lost      int    `json:"lost"`   // data, or what a client was told
	// Whole says that the test ran with all that it is made of: of an earlier run of it nothing counts, nor of that one's
	// subtests, which need not be the same.
	Whole bool `json:"whole,omitempty"`
}

// Runs says whether this process runs all of the test that is running: no -run picks some of its subtests.
func Runs(test string) bool {
	picked := flag.Lookup("test.run")
	return picked == nil || strings.Count(picked.Value.String(), "/") <= strings.Count(test, "/")
}

// Add counts the cases of o as well.
func (r *Result) Add(o Result) {
	r.Cases, r.Converged, r.Leaked, r.Lost = r.Cases+o.Cases, r.Converged+o.Converged, r.Leaked+o.Leaked, r.Lost+o.Lost
}

// Append adds results to the file that the environment names; nothing is done where it names none.
func Append(all []Result) (err error) {
	path := os.Getenv(ResultsEnv)
	if path == "" || len(all) == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, r := range all {
		if err := json.NewEncoder(f).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// ReadResults reads what such a file holds. Of a test that was run again, the last result counts.
func ReadResults(text []byte) (all []Result, err error) {
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		var r Result
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return nil, err
		}
		at := slices.IndexFunc(all, r.sameAs)
		if at < 0 {
			all = append(all, r)
			continue
		}
		all[at] = r
		if r.Whole {
			all = slices.DeleteFunc(all, r.isAbove)
		}
	}
	return all, s.Err()
}

func (r Result) sameAs(o Result) bool {
	return o.Where == r.Where && o.Test == r.Test && o.Operation == r.Operation
}

func (r Result) isAbove(o Result) bool {
	return o.Where == r.Where && strings.HasPrefix(o.Test, r.Test+"/") && o.Operation == r.Operation
}
