package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"banger/internal/vm"
)

// jsonFlag adds --json to a reading command.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON on stdout, for programs")
}

// printJSON writes v, indented; a nil slice as [] since readers expect an array.
func printJSON[T any](w io.Writer, v T) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return vm.Errorf(vm.CodeInternal, "encode the answer: %w", err)
	}
	if string(b) == "null" {
		b = []byte("[]")
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// table collects rows and writes them as aligned columns.
type table struct{ rows [][]string }

// row adds one. The guest's words may be among the cells.
func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// write aligns every column but the last, two spaces apart. Cells of the program's own data hold ASCII.
func (t *table) write(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "%-*s  ", widths[i], cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// age tells how long ago t was, as people say it.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t)) + " ago"
}

// span writes a duration in its largest useful unit: "12 seconds", "3 hours".
func span(d time.Duration) string {
	n, unit := max(0, int(d.Seconds())), "second"
	switch {
	case d >= 48*time.Hour:
		n, unit = int(d.Hours()/24), "day"
	case d >= 2*time.Hour:
		n, unit = int(d.Hours()), "hour"
	case d >= 2*time.Minute:
		n, unit = int(d.Minutes()), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// shortDigest keeps enough of "sha256:<hex>" to tell digests apart.
func shortDigest(d string) string {
	hex := strings.TrimPrefix(d, "sha256:")
	return hex[:min(12, len(hex))]
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

func after(separator, s string) string {
	if s == "" {
		return ""
	}
	return separator + s
}

// cleanLines makes harmless lines, all but the first indented: none of them can pass for one of ours.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// clean makes one harmless line of text that came from a build log or a guest: it must not steer the terminal.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s))
}
