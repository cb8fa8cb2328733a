package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// document is a text with sessions in it: what lies between "```console" and "```". A line that begins with "$ " is a
// command, what follows is its output.
type document struct {
	lines []string
}

// rewrite passes each command to run and puts what it returns in the place of the output. known is the output that was
// there. Lines of progress are left out but in a session that begins with "```console progress".
func (d document) rewrite(run func(command, known string) string) string {
	var out []string
	for i := 0; i < len(d.lines); i++ {
		fence := d.lines[i]
		out = append(out, fence)
		if fence != "```console" && fence != "```console progress" {
			continue
		}
		for i++; i < len(d.lines) && d.lines[i] != "```"; {
			command := d.lines[i]
			out = append(out, command)
			var known []string
			for i++; i < len(d.lines) && d.lines[i] != "```" && !strings.HasPrefix(d.lines[i], "$ "); i++ {
				known = append(known, d.lines[i])
			}
			if !strings.HasPrefix(command, "$ ") {
				continue
			}
			text := run(strings.TrimPrefix(command, "$ "), strings.Join(known, "\n"))
			if fence == "```console" {
				text = progressLine.ReplaceAllString(text, "")
			}
			if text = strings.TrimRight(text, "\n"); text != "" {
				out = append(out, strings.Split(text, "\n")...)
			}
		}
		out = append(out, "```")
	}
	return strings.Join(out, "\n")
}

var (
	progressLine = regexp.MustCompile(`(?m)^banger: [a-z ]+ ….*\n`)
	changing     = []struct {
		pattern *regexp.Regexp
		by      string
	}{
		{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "ID"},
		{regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b`), "DAY"},
		{regexp.MustCompile(`[0-9][0-9.,]*( ?[kKMGT]i?B?\b|%)?`), "N"}, // 127.1M becomes 1.2G on another day
		{regexp.MustCompile(`\b(about )?(an?|N) (second|minute|hour|day)s?\b`), "TIME"},
		{regexp.MustCompile(`\b[a-z]{4,6}-[a-z]{3,7}\b`), "NAME"}, // of a VM whose name was made up
		{regexp.MustCompile(`  [RSD]  `), "  STATE  "},            // of a process
		{regexp.MustCompile(`N(ms|µs|ns|s|m)\b`), "TIME"},
		{regexp.MustCompile(`[ -]+`), " "},
	}
)

// jobIDs are ids of jobs in a document, and those that they go by today: what is typed names them.
type jobIDs map[string]string

var (
	jobID      = regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	jobIDBegin = regexp.MustCompile(`\b[0-9a-f]{4,12}\b`)
)

// learn finds the ids of an output in the one that was known, and returns it with those of the document.
func (ids jobIDs) learn(known, out string) string {
	was, is := jobID.FindAllString(known, -1), jobID.FindAllString(out, -1)
	if len(was) != len(is) {
		return out
	}
	for i := range is {
		ids[was[i]] = is[i]
		out = strings.ReplaceAll(out, is[i], was[i])
	}
	return out
}

// today is a command with the ids, or beginnings of them, that it has to be typed with.
func (ids jobIDs) today(command string) string {
	return jobIDBegin.ReplaceAllStringFunc(command, func(word string) string {
		for was, is := range ids {
			if strings.HasPrefix(was, word) {
				return is[:len(word)]
			}
		}
		return word
	})
}

// same says whether two outputs differ only in what differs from one run to the next.
func same(a, b string) bool { return steady(a) == steady(b) }

func steady(text string) string {
	for _, c := range changing {
		text = c.pattern.ReplaceAllString(text, c.by)
	}
	return strings.TrimSpace(text)
}

func TestDocument(t *testing.T) {
	const text = "# Title\n\n    $ not this\n\n```console\n$ one\nold\nolder\n$ two\n```\ntext\n```console progress\n$ three\n```\n```sh\n$ nor this\n```\n"
	var known []string
	got := document{strings.Split(text, "\n")}.rewrite(func(command, was string) string {
		known = append(known, command+"="+was)
		return "banger: boot … 1.0s\nnew " + command + "\n"
	})
	want := "# Title\n\n    $ not this\n\n```console\n$ one\nnew one\n$ two\nnew two\n```\ntext\n```console progress\n$ three\nbanger: boot … 1.0s\nnew three\n```\n```sh\n$ nor this\n```\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if k := strings.Join(known, "; "); k != "one=old\nolder; two=; three=" {
		t.Errorf("%q", k)
	}
}

func TestJobIDs(t *testing.T) {
	ids := jobIDs{}
	if got := ids.learn("2f8c231f5c82", "0123456789ab\n"); got != "2f8c231f5c82\n" {
		t.Errorf("an output becomes %q", got)
	}
	if got := ids.learn("", "ba9876543210\n"); got != "ba9876543210\n" {
		t.Errorf("an output with a new id becomes %q", got)
	}
	for typed, want := range map[string]string{
		"banger vm attach web 2f8c; echo $?": "banger vm attach web 0123; echo $?",
		"banger vm signal web 2f8c231f5c82":  "banger vm signal web 0123456789ab",
		"echo 2f8d face":                     "echo 2f8d face",
	} {
		if got := ids.today(typed); got != want {
			t.Errorf("%q is typed as %q, want %q", typed, got, want)
		}
	}
}

func TestSame(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"web  running  2 seconds ago", "web running About 1 minute ago", false},
		{"web  running  1G  2 seconds ago", "web  running  968.3M   1 minute ago", true},
		{"glad-eagle", "brave-crow", true},
		{"9f8e7d6c5b4a", "000000000001", true},
		{"disk … 0.1s", "disk … 120ms", true},
		{"1  0  root  S  1.0%", "1  0  root  R  51%", true},
		{"web  running", "web  stopped", false},
		{"exit 42", "exit 42\nmore", false},
		{"", "x", false},
	} {
		if got := same(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v (%q, %q)", c.a, c.b, got, steady(c.a), steady(c.b))
		}
	}
}
