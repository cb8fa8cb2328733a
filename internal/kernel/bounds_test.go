package kernel

import (
	"bytes"
	"path"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"banger/internal/vm"
)

// TestDictionaryIsBounded: a header of 13 bytes must not reserve what it claims to need.
func TestDictionaryIsBounded(t *testing.T) {
	for _, claim := range []string{"\x00\x00\xff\x7f", "\x00\x00\x00\x80", "\x00\x00\x01\x10"} { // of dictionary: 2 GiB, and just above our bound
		header := "\x5d" + claim + strings.Repeat("\xff", 8) // and a content of unknown length
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := inflate([]byte(header + "\x00\x00\x00\x00\x00"))
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > 8<<20 {
			t.Errorf("%x: %v, with %d MiB", header, err, grown>>20)
		}
	}
}

// TestTreeIsBounded: many files that are each small enough must not fill the disk.
func TestTreeIsBounded(t *testing.T) {
	packed := squeeze(t, "xz", bytes.Repeat([]byte{0}, 1000))
	for name, c := range map[string]struct {
		maxFiles int
		maxBytes int64
		suffix   string
		content  []byte
		want     string
	}{
		"within":     {3, 3000, ".ko", make([]byte, 1000), ""},
		"files":      {2, 3000, ".ko", nil, "more than 2 files"},
		"bytes":      {9, 2999, ".ko", make([]byte, 1000), "more than 2999 bytes"},
		"compressed": {9, 2999, ".ko.xz", packed, "more than 2999 bytes"},
	} {
		tr, err := newTree(t.Context(), path.Join(t.TempDir(), "tree"))
		if err != nil {
			t.Fatal(err)
		}
		tr.maxFiles, tr.maxBytes = c.maxFiles, c.maxBytes
		if err := tr.setRelease("6.1"); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"a", "b", "c"} {
			if err = tr.add("kernel/"+file+c.suffix, bytes.NewReader(c.content)); err != nil {
				break
			}
		}
		if werr := tr.wait(); err == nil {
			err = werr
		}
		tr.close()
		if c.want == "" && err != nil || c.want != "" && (vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, name := range []string{"./boot/vmlinuz-6.1", "usr/lib/modules/6.1/vmlinuz", "/lib/modules/6.1/kernel/a.ko", "lib/modules/../../x", "usr/usr/lib/modules/6/x"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		kind, release, rest := classify(name)
		switch kind {
		case notOurs:
			if release != "" || rest != "" {
				t.Errorf("%q is not ours, but %q and %q", name, release, rest)
			}
		case kernelImage:
			if rest != "" || strings.Contains(release, "/") {
				t.Errorf("%q is the image of %q, with %q", name, release, rest)
			}
		case moduleFile:
			if strings.Contains(release, "/") || rest == "" || path.Clean("/"+rest) != "/"+rest {
				t.Errorf("%q is %q of %q", name, rest, release)
			}
		}
	})
}

// What a package depends on ends up in apt-get's arguments.
func FuzzKernelDependencies(f *testing.F) {
	argument := regexp.MustCompile(`^linux-(image|modules|binary)-[a-z0-9+.-]+(=[A-Za-z0-9.+~:-]+)?$`)
	f.Add("kmod, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), linux-modules-x | y")
	f.Add("linux-image-a (= $(reboot)),linux-image--o,,|")
	f.Fuzz(func(t *testing.T, depends string) {
		for _, name := range kernelDependencies(depends) {
			if !argument.MatchString(name) || strings.ContainsAny(name, " \t\n") {
				t.Errorf("%q gives %q", depends, name)
			}
		}
	})
}

func FuzzParseBuiltin(f *testing.F) {
	f.Add(cloudBuiltin)
	f.Add("kernel/a-b.ko\n\n  kernel/c.ko.xz\r\n..\n/\n")
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseBuiltin(strings.NewReader(text))
		if err != nil {
			return
		}
		if len(names) > strings.Count(text, "\n")+1 {
			t.Errorf("%q has %d names", text, len(names))
		}
		for name := range names {
			if strings.Contains(name, "-") || strings.ContainsAny(name, "\n") || strings.Contains(name, "/") && name != "/" {
				t.Errorf("%q gives %q", text, name)
			}
		}
	})
}
