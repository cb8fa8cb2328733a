package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const recording = `{"version": 2, "width": 20, "height": 2}
[0.5, "o", "$ ls\r\n"]
[1, "o", "boot \u2026"]
[1.5, "o", "\r\u001b[Kboot \u001b[1mdone\u001b[0m\r\n<a>\r\n"]
[2, "o", "$ "]
`

func TestPlay(t *testing.T) {
	s, err := play([]byte(recording))
	if err != nil {
		t.Fatal(err)
	}
	want := []line{{[]version{{"$ ls", .5}}}, {[]version{{"", .5}, {"boot …", 1}, {"boot done", 1.5}}}, {[]version{{"<a>", 1.5}}}, {[]version{{"", 1.5}, {"$", 2}}}}
	if len(s.lines) != len(want) || s.end != 2 {
		t.Fatalf("%+v", s)
	}
	for i, l := range s.lines {
		if len(l.versions) != len(want[i].versions) {
			t.Fatalf("line %d: %v", i, l)
		}
		for j, v := range l.versions {
			if v != want[i].versions[j] {
				t.Errorf("line %d: %v, want %v", i, v, want[i].versions[j])
			}
		}
	}
}

func TestPlayRefuses(t *testing.T) {
	const head = `{"version":2,"width":4,"height":2}`
	for _, bad := range []string{"", "{}", head + `[1,"o"]`, head + `["1","o","x"]`, head + `[2,"o","x"][1,"o","y"]`, head + `[1,"o","\u001b[2J"]`, head + `[1,"o","12345"]`, head + `[1,"o","\u0007"]`} {
		if _, err := play([]byte(bad)); err == nil {
			t.Errorf("%q is played", bad)
		}
	}
}

func TestConvert(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "a.cast"), filepath.Join(t.TempDir(), "a.svg")
	if err := os.WriteFile(from, []byte(recording), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := convert(from, to); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(to) //nolint:gosec // the test's own
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, part := range []string{"&lt;a&gt;", `<text y="33" visibility="hidden">boot …<set attributeName="visibility" to="visible" begin="1.00s" end="1.50s"/></text>`, "100% { transform: translateY(-38px) }"} {
		if !strings.Contains(string(svg), part) {
			t.Errorf("no %s in\n%s", part, svg)
		}
	}
}
