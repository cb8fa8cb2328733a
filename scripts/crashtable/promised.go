package main

import (
	"errors"
	"fmt"

	"banger/internal/crashtest"
)

// promises are the fewest cases of each place in one run (docs/RELIABILITY.md).
var promises = []struct {
	where string
	cases int
}{{crashtest.FakeKernel, 500}, {crashtest.HostKernel, 60}, {crashtest.InLab, 60}}

// kept says which places have fewer cases than are promised, or none.
func kept(all []crashtest.Result) error {
	var errs []error
	for _, p := range promises {
		n := 0
		for _, r := range all {
			if r.Where == p.where {
				n += r.Cases
			}
		}
		switch {
		case n == 0:
			errs = append(errs, fmt.Errorf("no crash case ran on the %s, and at least %d are promised", p.where, p.cases))
		case n < p.cases:
			errs = append(errs, fmt.Errorf("%d crash cases ran on the %s, and at least %d are promised", n, p.where, p.cases))
		}
	}
	return errors.Join(errs...)
}
