// Command man writes a manual page for each command of banger, from what --help says, into DIR:
//
//	man [-date UNIX-TIME] DIR
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

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
	err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Manual: "User Commands", Source: "banger " + version.String(), Date: &at}, dir)
	if err != nil {
		return err
	}
	return retouch(root, dir)
}

// retouch has the pages of cmd and those below it name flags as people write them: cobra says --detach[=false] and --name="".
func retouch(cmd *cobra.Command, dir string) error {
	page := filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1")
	text, err := os.ReadFile(page) //nolint:gosec // has just been written
	if err != nil {
		return err
	}
	text = flagLine.ReplaceAllFunc(text, func(line []byte) []byte {
		m := flagLine.FindSubmatch(line)
		return append(m[1], valueOf(cmd.Flag(string(m[2])))...)
	})
	if err := os.WriteFile(page, text, 0o644); err != nil { //nolint:gosec // for all to read
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := retouch(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

// flagLine is what cobra writes of a flag: its names, and its default.
var flagLine = regexp.MustCompile(`(?m)^((?:\\fB-\w\\fP, )?\\fB--([a-z0-9-]+)\\fP)\[?=.*$`)

// valueOf is a flag's value and default in roff; empty where it takes none.
func valueOf(f *pflag.Flag) string {
	name, _ := pflag.UnquoteUsage(f)
	if f.NoOptDefVal != "" || name == "" {
		return ""
	}
	if f.DefValue == "" || f.DefValue == "[]" {
		return ` \fI` + name + `\fP`
	}
	return fmt.Sprintf(` \fI%s\fP (default %s)`, name, strings.ReplaceAll(f.DefValue, "-", `\-`))
}
