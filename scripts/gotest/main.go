// Command gotest runs go test and remembers which tests ran and which were skipped, since go test without -v hides the
// latter:
//
//	gotest -record FILE [-again] [-v] [go test's arguments]
//	gotest -report FILE
//	gotest -skipped FILE WORDS
//
// The first prints what go test would and adds each test's outcome to FILE. With -again a test that failed is run once
// more, alone, and its failure counts only if it fails again. The second lists the tests that were skipped in every run
// that FILE knows of, with their reasons, and those that failed once. The third prints the pattern, for -run, of those that
// were skipped for a reason with WORDS in it: a run that lacks nothing any more need not repeat the others.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	var err error
	switch {
	case len(os.Args) >= 3 && os.Args[1] == "-record":
		err = recordAll(os.Args[2], os.Args[3:])
	case len(os.Args) == 3 && os.Args[1] == "-report":
		err = report(os.Stdout, os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "-skipped":
		err = skipped(os.Stdout, os.Args[2], os.Args[3])
	default:
		fmt.Fprintln(os.Stderr, "usage: gotest -record FILE [-again] [ARG...] | gotest -report FILE | gotest -skipped FILE WORDS")
		os.Exit(2)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit): // go test has said why
		os.Exit(max(exit.ExitCode(), 1))
	default:
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// recordAll runs go test to its end, and where asked what failed once more.
func recordAll(file string, args []string) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	record := json.NewEncoder(f)
	again := len(args) > 0 && args[0] == "-again"
	if again {
		args = args[1:]
	}
	p := newPrinter(os.Stdout, record, verbose(args))
	if err := run(p, args); err == nil || !again {
		if err != nil && verbose(args) {
			p.failed.sum(os.Stdout)
		}
		return err
	}
	return runAgain(record, p.failed, args)
}

// run runs go test to its end.
func run(p *printer, args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...) //nolint:gosec // the caller's own
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s := bufio.NewScanner(out)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		if err == nil {
			err = p.line(s.Bytes())
		}
	}
	_, _ = io.Copy(io.Discard, out) // after a line that is too long: go test must not wait for its reader
	return errors.Join(err, s.Err(), cmd.Wait())
}

func verbose(args []string) bool {
	for _, a := range args {
		if a == "-v" {
			return true
		}
	}
	return false
}
