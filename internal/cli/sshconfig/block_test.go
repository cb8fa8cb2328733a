package sshconfig

import (
	"strings"
	"testing"
)

// What a block is put before comes back byte for byte.
func TestLook(t *testing.T) {
	for _, rest := range []string{
		"", "\n", "Host a\n", "Host a\n  User b", "Host a\r\n  User b\r\n", "# BEGIN banger\n", " " + begin + "\n", begin + "x\n", "\xff\x00\n", "# END bangers\nHost x",
	} {
		for _, created := range []bool{false, true} {
			b := block("/h/.ssh/banger.conf", created)
			f, err := look(b + rest)
			if err != nil || f.rest != rest || f.block != b || f.created != created {
				t.Errorf("before %q: %+v, %v", rest, f, err)
			}
			if f, err = look("Host above\n" + b + rest); err != nil || f.rest != "Host above\n"+rest || f.block != b {
				t.Errorf("within: %+v, %v", f, err)
			}
		}
		if f, err := look(rest); err != nil || f.rest != rest || f.block != "" {
			t.Errorf("without: %+v, %v", f, err)
		}
	}
	b := block("/x", false)
	if f, err := look("a\n" + strings.TrimSuffix(b, "\n")); err != nil || f.rest != "a\n" {
		t.Errorf("its last line has no end: %+v, %v", f, err)
	}
}

func TestLookRefuses(t *testing.T) {
	b := block("/x", false)
	for config, words := range map[string]string{
		"a\n" + begin + "\nInclude x\n": "begins on line 2 and has no end",
		"a\nb\n" + end + "\nc\n":        "line 3 ends",
		b + "c\n" + b:                   "begins on line 1, and once more on line 5",
		"a\n" + begin + "\n" + b:        "begins on line 2, and once more on line 3",
	} {
		if _, err := look(config); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", config, err, words)
		}
	}
}

func FuzzLook(f *testing.F) {
	f.Add(block("/x", true) + "Host a\n")
	f.Add("a\n" + begin + "\n" + end)
	f.Fuzz(func(t *testing.T, config string) {
		found, err := look(config)
		if err != nil {
			return
		}
		if found.block == "" && found.rest != config {
			t.Fatalf("nothing found, and %q became %q", config, found.rest)
		}
		if again, err := look(block("/x", found.created) + found.rest); err == nil && again.rest != found.rest {
			t.Fatalf("%q became %q", found.rest, again.rest)
		}
	})
}
