package testhost

import (
	"flag"
	"strconv"
)

// atOnce is how many tests wait together.
const atOnce = 16

// Together lets tests that are parallel run at once in larger numbers than there are processors. It is for the TestMain of a package
// whose parallel tests wait more than they work: for a grace to pass, for the next try.
func Together() {
	flag.Parse()
	f := flag.Lookup("test.parallel")
	if n, err := strconv.Atoi(f.Value.String()); err == nil && n < atOnce {
		_ = f.Value.Set(strconv.Itoa(atOnce))
	}
}
