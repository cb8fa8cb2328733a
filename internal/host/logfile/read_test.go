package logfile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLastLines(t *testing.T) {
	const text = "a\nb\nc\n"
	for n, want := range map[int]string{-1: text, 0: "", 1: "c\n", 2: "b\nc\n", 3: text, 9: text} {
		if got := string(LastLines([]byte(text), n)); got != want {
			t.Errorf("last %d lines: %q, want %q", n, got, want)
		}
	}
	if got := string(LastLines([]byte("a\nb"), 1)); got != "b" {
		t.Errorf("without an end of line: %q", got)
	}
	if got := LastLines(nil, 3); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}

func TestFollowSeesAppendsAndSurvivesTruncation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(s string) {
		t.Helper()
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	write("old 1\nold 2\n")
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Read(ctx, path, ReadOptions{Tail: 1, Follow: true}, w) }()
	lines := bufio.NewScanner(r)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	next("old 2")
	for i := range 100 {
		write(fmt.Sprintf("new %d %s\n", i, strings.Repeat("x", i)))
		next(fmt.Sprintf("new %d %s", i, strings.Repeat("x", i)))
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	write("after\n")
	next("after")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a follow that is ended: %v", err)
	}
}

func TestAbsentLogIsEmpty(t *testing.T) {
	var b strings.Builder
	if err := Read(t.Context(), filepath.Join(t.TempDir(), "x"), ReadOptions{Tail: -1}, &b); err != nil || b.Len() != 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}
