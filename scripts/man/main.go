// Command man writes a manual page for each command of banger, from what --help says, into DIR:
//
//	man [-date UNIX-TIME] DIR
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra/doc"

	"banger/internal/cli"
	"banger/internal/version"
)

func main() {
	date := flag.Int64("date", 0, "seconds since 1970 that the pages carry; 0 = now")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(flag.Arg(0), *date); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string, date int64) error {
	at := time.Now()
	if date > 0 {
		at = time.Unix(date, 0).UTC()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for all to read
		return err
	}
	root := cli.Tree()
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Manual: "User Commands", Source: "banger " + version.String(), Date: &at}, dir)
}
