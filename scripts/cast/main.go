// Command cast draws a recorded terminal session (asciicast v2) as an SVG that plays itself, once:
//
//	cast IN.cast OUT.svg
//
// It knows as much of a terminal as banger's output needs: new lines, returns, ESC[K, and colours, which it leaves out.
package main

import (
	"bytes"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cast IN.cast OUT.svg")
		os.Exit(2)
	}
	if err := convert(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cast:", err)
		os.Exit(1)
	}
}

func convert(from, to string) error {
	text, err := os.ReadFile(from) //nolint:gosec // the caller's own
	if err != nil {
		return err
	}
	s, err := play(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	var out bytes.Buffer
	s.draw(&out)
	return os.WriteFile(to, out.Bytes(), 0o644) //nolint:gosec // for all to read
}
