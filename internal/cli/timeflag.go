package cli

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// parseTime reads a span of time: 10 and 10s are ten seconds, 1m30s is longer.
func parseTime(s string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(n) <= math.MaxInt64/float64(2*time.Second) {
		return time.Duration(n * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("it must be a time as 30s or 5m; a bare number is seconds")
	}
	return d, nil
}

// timeFlag is a pflag.Value as parseTime reads it.
type timeFlag struct{ time.Duration }

func (f *timeFlag) Type() string { return "TIME" }

func (f *timeFlag) Set(s string) (err error) {
	f.Duration, err = parseTime(s)
	return err
}

func (f *timeFlag) String() string {
	if f.Duration == 0 {
		return ""
	}
	return f.Duration.String()
}

// lastFlag is how many of the last lines are asked for; all where that is negative.
type lastFlag struct{ lines int }

func (f *lastFlag) Type() string { return "LINES" }

func (f *lastFlag) Set(s string) error {
	if s == "all" {
		f.lines = -1
		return nil
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return errors.New("it must be a number, or all")
	case n < 0:
		return errors.New("it must not be negative")
	}
	f.lines = n
	return nil
}

func (f *lastFlag) String() string {
	if f.lines < 0 {
		return "all"
	}
	return strconv.Itoa(f.lines)
}

// ownWords tells in words what a flag takes whose value pflag could not read: it would name the function that did not.
func ownWords(err *pflag.InvalidValueError) error {
	var number *strconv.NumError
	if !errors.As(err, &number) {
		return err
	}
	f := err.GetFlag()
	what := "a whole number"
	switch {
	case f.Value.Type() == "bool":
		what = "true or false"
	case errors.Is(number, strconv.ErrRange):
		what = "a smaller number"
	}
	return errors.New("--" + f.Name + " " + strconv.Quote(err.GetValue()) + ": it must be " + what)
}
