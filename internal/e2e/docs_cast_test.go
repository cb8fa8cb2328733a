package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testhost"
)

// minute is what the README shows as a moving picture.
var minute = []string{
	"banger vm run -- cat /etc/hostname",
	"banger vm run --rm -- sh -c 'exit 42'; echo $?",
	"banger vm run --name web -d",
	"banger vm exec web -- uname -r",
	"kill -9 $(cat /var/lib/banger/bangerd.lock)   # the daemon",
	"banger vm exec web -- uptime -p",
	"banger ps",
	"banger vm delete --all --yes",
	"banger doctor --leaks | grep -c ORPHAN",
}

const (
	castWidth, castHeight = 96, 22

	perKey = 35 * time.Millisecond // a quick typist
	pause  = 700 * time.Millisecond
)

// With -write it records that minute on a terminal, the times as they were, and draws it.
func TestCast(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU, testhost.Root)
	if !*writeDocs {
		t.Skip("needs -write (make docs): TestDocs types the same commands")
	}
	s := newSitting(t)
	dir := filepath.Join(testhost.Repo(t), "docs")
	c := &cast{t: t}
	c.encode(map[string]any{"version": 2, "width": castWidth, "height": castHeight, "title": "banger: the first minute"})
	for _, line := range minute {
		c.put("$ ")
		c.at += pause
		for keys := range slices.Chunk([]rune(line), 3) { // each makes a picture
			c.at += time.Duration(len(keys)) * perKey
			c.put(string(keys))
		}
		c.put("\r\n")
		c.run(s, line)
	}
	c.put("$ ")
	from := filepath.Join(dir, "first-minute.cast")
	if err := os.WriteFile(from, c.out.Bytes(), 0o644); err != nil { //nolint:gosec // for all to read
		t.Fatal(err)
	}
	draw := exec.Command("go", "run", "./scripts/cast", from, filepath.Join(dir, "first-minute.svg")) //nolint:gosec // ours
	draw.Dir = testhost.Repo(t)
	if out, err := draw.CombinedOutput(); err != nil {
		t.Fatalf("draw it: %v\n%s", err, out)
	}
}

// cast is a recording in asciicast's format, version 2.
type cast struct {
	t   *testing.T
	out bytes.Buffer
	at  time.Duration
}

func (c *cast) encode(v any) {
	e := json.NewEncoder(&c.out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cast) put(text string) { c.encode([]any{c.at.Round(time.Millisecond).Seconds(), "o", text}) }

// run records one line on a terminal of its own.
func (c *cast) run(s *sitting, line string) {
	cmd, done := s.command(line)
	defer done()
	begin, from := time.Now(), c.at
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: castWidth, Rows: castHeight})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = terminal.Close() }()
	b := make([]byte, 4096)
	for rest := ""; ; {
		n, err := terminal.Read(b)
		if n > 0 {
			c.at = from + time.Since(begin)
			text := rest + string(b[:n])
			whole := strings.ToValidUTF8(text, "\x00") // a character may come in two parts
			if i := strings.IndexByte(whole, 0); i >= 0 && len(text)-i < 4 {
				text, rest = text[:i], text[i:]
			} else {
				rest = ""
			}
			c.put(s.usual(text))
		}
		if err != nil { // EIO: whoever had the terminal is gone
			break
		}
	}
	_ = cmd.Wait()
	c.at = from + time.Since(begin)
}
