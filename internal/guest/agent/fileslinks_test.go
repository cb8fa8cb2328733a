package agent

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/vm"
)

// The links of a system (/var/run, /bin, /lib64) are absolute as often as not, and lead to directories all the same.
func TestFilesThroughLinksInside(t *testing.T) {
	addr := serveFiles(t)
	for name, tt := range map[string]struct {
		links  map[string]string // name -> target; DST stands for the directory
		stream []string
		want   string // where "hello" has to lie
	}{
		"absolute, as a directory":       {map[string]string{"var/run": "DST/run"}, []string{"var/", "var/run/", "var/run/x"}, "run/x"},
		"absolute, below it":             {map[string]string{"var/run": "DST/run"}, []string{"var/run/app/", "var/run/app/x"}, "run/app/x"},
		"directories the stream has not": {map[string]string{"var/run": "DST/run"}, []string{"var/run/app/deep/x"}, "run/app/deep/x"},
		"chained":                        {map[string]string{"a": "DST/b", "b": "c", "c": "DST/run"}, []string{"a/", "a/x"}, "run/x"},
		"a link below a link":            {map[string]string{"a": "DST/var", "var/b": "DST/run"}, []string{"a/b/x"}, "run/x"},
		"back up":                        {map[string]string{"var/b": "../run"}, []string{"var/b/", "var/b/x"}, "run/x"},
		"to the directory itself":        {map[string]string{"a": "DST"}, []string{"a/run/", "a/run/x"}, "run/x"},
		"a hard link's target":           {map[string]string{"var/run": "DST/run"}, []string{"run/y", "x => var/run/y"}, "x"},
		"of the stream":                  {nil, []string{"l -> run", "l/", "l/x"}, "run/x"},
	} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dst, "run"), 0o755), os.MkdirAll(filepath.Join(dst, "var"), 0o755))
			for link, target := range tt.links {
				if rest, ok := bytes.CutPrefix([]byte(target), []byte("DST")); ok {
					target = dst + string(rest)
				}
				must(t, os.Symlink(target, filepath.Join(dst, link)))
			}
			expect(t, "", "PUT", addr, dst, bytes.NewReader(entries(t, tt.stream...)))
			if b, err := os.ReadFile(filepath.Join(dst, tt.want)); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
			for link := range tt.links {
				if fi, err := os.Lstat(filepath.Join(dst, link)); err != nil || fi.Mode()&os.ModeSymlink == 0 {
					t.Errorf("%s is a link no more: %v, %v", link, fi, err)
				}
			}
		})
	}
}

func TestFilesThroughLinksOutside(t *testing.T) {
	addr := serveFiles(t)
	for name, tt := range map[string]struct {
		target string // of the link l; OUT stands for the directory beside
		stream []string
		code   vm.Code
	}{
		"absolute":                 {"OUT", []string{"l/x"}, vm.CodeInvalid},
		"absolute, as a directory": {"OUT", []string{"l/", "l/x"}, vm.CodeConflict},
		"by dots":                  {"DST/../outside", []string{"l/x"}, vm.CodeInvalid},
		"a name that begins alike": {"DST-2", []string{"l/x"}, vm.CodeInvalid},
		"in a circle":              {"DST/l", []string{"l/x"}, vm.CodeInvalid},
		"from the stream":          {"run", []string{"l/", "m -> OUT", "m/x"}, vm.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dst, out := filepath.Join(base, "dst"), filepath.Join(base, "outside")
			must(t, os.MkdirAll(filepath.Join(dst, "run"), 0o755), os.Mkdir(out, 0o755), os.Mkdir(dst+"-2", 0o755))
			full := func(s string) string {
				return string(bytes.ReplaceAll(bytes.ReplaceAll([]byte(s), []byte("DST"), []byte(dst)), []byte("OUT"), []byte(out)))
			}
			must(t, os.Symlink(full(tt.target), filepath.Join(dst, "l")))
			before := tree(t, out)
			var stream []string
			for _, s := range tt.stream {
				stream = append(stream, full(s))
			}
			expect(t, tt.code, "PUT", addr, dst, bytes.NewReader(entries(t, stream...)))
			if after := tree(t, out); !maps.Equal(before, after) {
				t.Errorf("written outside: %v", after)
			}
			if left, _ := os.ReadDir(dst + "-2"); len(left) != 0 {
				t.Errorf("written outside: %v", left)
			}
		})
	}
}
