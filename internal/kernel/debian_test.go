package kernel

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseControl(t *testing.T) {
	got, err := parseControl(strings.NewReader("Package: linux-image-6.12-cloud-amd64\nVERSION: 6.12.1-1~deb12u1\nDepends: a,\n linux-image-6.12.1 (= 6.12.1-1)\nDescription: x\n Package: no\n\nPackage: next\n"))
	want := control{"linux-image-6.12-cloud-amd64", "6.12.1-1~deb12u1", "a, linux-image-6.12.1 (= 6.12.1-1)"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "Package: x\n", "Version: 1\n", "nonsense\n", " Package: x\n Version: 1\n"} {
		if c, err := parseControl(strings.NewReader(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, c)
		}
	}
}

func TestKernelDependencies(t *testing.T) {
	for depends, want := range map[string][]string{
		"": nil,
		"kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool": nil,
		"linux-image-6.12.117+deb12-cloud-amd64":                             {"linux-image-6.12.117+deb12-cloud-amd64"},
		"linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)":                     {"linux-image-6.1.0-56-cloud-amd64=6.1.192-2"},
		"kmod, linux-modules-6.8.0-1-generic, linux-firmware":                {"linux-modules-6.8.0-1-generic"},
		"linux-image-a | linux-image-b":                                      {"linux-image-a"},
		"linux-image-a (>= 1)":                                               nil, // a bound names no version
		"linux-image-$(reboot)":                                              nil,
	} {
		if got := kernelDependencies(depends); !slices.Equal(got, want) {
			t.Errorf("%q gives %q, want %q", depends, got, want)
		}
	}
}

func TestClassify(t *testing.T) {
	for name, want := range map[string]struct {
		kind          fileKind
		release, rest string
	}{
		"./boot/vmlinuz-6.1":                     {kernelImage, "6.1", ""},
		"usr/lib/modules/6.1/vmlinuz":            {kernelImage, "6.1", ""},
		"./lib/modules/6.1/kernel/a.ko":          {moduleFile, "6.1", "kernel/a.ko"},
		"./lib/modules/6.1/../../../etc/shadow":  {notOurs, "", ""},
		"./lib/modules/6.1/kernel/../../../x.ko": {notOurs, "", ""},
		"../../lib/modules/6.1/a.ko":             {moduleFile, "6.1", "a.ko"},
		"./lib/modules/6.1":                      {notOurs, "", ""},
		"./boot/System.map-6.1":                  {notOurs, "", ""},
		"./boot/vmlinuz-6.1/x":                   {notOurs, "", ""},
		"./usr/share/doc/lib/modules/6.1/x.ko":   {notOurs, "", ""},
	} {
		kind, release, rest := classify(name)
		if kind != want.kind || kind != notOurs && (release != want.release || rest != want.rest) {
			t.Errorf("%s is %v %q %q, want %v", name, kind, release, rest, want)
		}
	}
}

func readAr(b []byte) (map[string]string, error) {
	members := map[string]string{}
	ar, err := newArReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		name, err := ar.next()
		if errors.Is(err, io.EOF) {
			return members, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(ar)
		if err != nil {
			return nil, err
		}
		members[name] = string(content)
	}
}

// arHeader is one as ar(1) writes it.
func arHeader(name, size string) string {
	pad := func(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }
	return pad(name, 16) + pad("0", 12) + pad("0", 6) + pad("0", 6) + pad("100644", 8) + pad(size, 10) + "`\n"
}

func TestAr(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want map[string]string // nil: an error
	}{
		"two members":         {arMagic + arHeader("a", "3") + "abc\n" + arHeader("b/", "2") + "de", map[string]string{"a": "abc", "b": "de"}},
		"no members":          {arMagic, map[string]string{}},
		"padding left out":    {arMagic + arHeader("a", "3") + "abc", map[string]string{"a": "abc"}},
		"no magic":            {"!<arch>x" + arHeader("a", "0"), nil},
		"empty":               {"", nil},
		"truncated content":   {arMagic + arHeader("a", "9") + "abc", nil},
		"truncated header":    {arMagic + arHeader("a", "0")[:30], nil},
		"negative size":       {arMagic + arHeader("a", "-3") + "abc", nil},
		"size is no number":   {arMagic + arHeader("a", "3x") + "abc", nil},
		"header without end":  {arMagic + strings.Replace(arHeader("a", "0"), "`", "'", 1), nil},
		"trailing whitespace": {arMagic + arHeader("a", "0") + "   ", nil},
	} {
		got, err := readAr([]byte(c.in))
		if (err == nil) != (c.want != nil) || c.want != nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func FuzzAr(f *testing.F) {
	f.Add([]byte(arMagic + arHeader("a", "3") + "abc\n" + arHeader("b/", "2") + "de"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readAr(b)
		if err != nil {
			return
		}
		total := 0
		for _, content := range got {
			total += len(content)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of content in %d", total, len(b))
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add(testControl)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseControl(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, d := range kernelDependencies(c.Depends) {
			if name, _, _ := strings.Cut(d, "="); !packagePattern.MatchString(name) {
				t.Fatalf("%q would become an argument", d)
			}
		}
	})
}
