package binary

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/vm"
)

// install puts a version into the library by hand: any but the pinned one.
func install(t *testing.T, l *Library, version string) {
	t.Helper()
	dir := write(t, map[string][]byte{"firecracker": vmmOf(version), "jailer": jailerOf(version)})
	given := []string{sum(vmmOf(version)), sum(jailerOf(version))}
	if _, err := l.Install(t.Context(), Name, api.InstallRequest{From: dir, SHA256: given}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestLocate(t *testing.T) {
	l := newLibrary(t, nil)
	path := os.Getenv("PATH")
	used := func(wantVMM, wantJailer, origin string) {
		t.Helper()
		vmm, jailer, err := l.Locate()
		if vmm != wantVMM || jailer != wantJailer || err != nil {
			t.Errorf("located %q and %q, %v; want %q and %q", vmm, jailer, err, wantVMM, wantJailer)
		}
		all, err := l.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, v := range all {
			if v.InUse {
				n++
				if v.Origin != origin || v.Digest == "" || v.Error != "" {
					t.Errorf("in use is %+v, want one that is %s", v, origin)
				}
			}
		}
		if n != 1 {
			t.Errorf("%d are in use: %+v", n, all)
		}
	}
	put := func(file string, content []byte) string {
		t.Helper()
		if err := os.WriteFile(file, content, 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}

	if _, _, err := l.Locate(); vm.CodeOf(err) != vm.CodeMissing || vm.HintOf(err) == "" {
		t.Errorf("none: %v", err)
	}
	if all, err := l.List(t.Context()); all == nil || len(all) != 0 || err != nil {
		t.Errorf("none: %+v, %v", all, err)
	}
	if v, err := l.Show(t.Context(), Name); err != nil || v.Usable || !strings.Contains(v.Why, "neither installed") || v.Hint == "" || v.Path != "" || v.Tested != "1.12.1" || v.Supported == "" {
		t.Errorf("none: %+v, %v", v, err)
	}

	put(filepath.Join(path, "firecracker"), vmmOf("1.14.0"))
	used("firecracker", "jailer", api.OriginPath)

	at := func(version, program string) string { return filepath.Join(l.Dir, Name, version, program) }
	for _, version := range []string{"1.9.0", "1.11.0", "1.10.9"} {
		install(t, l, version)
	}
	used(at("1.11.0", "firecracker"), at("1.11.0", "jailer"), api.OriginInstalled)

	// Neither one that is half there, nor one of no use, nor what is no version.
	for _, dir := range []string{"1.12.0", "2.0.0", "latest"} {
		if err := os.MkdirAll(at(dir, ""), 0o755); err != nil {
			t.Fatal(err)
		}
		put(at(dir, "firecracker"), vmmOf("1.12.0"))
	}
	put(at("2.0.0", "jailer"), jailerOf("2.0.0"))
	put(at("2.0.0", "vmm.json"), []byte(`{"version":"2.0.0"}`))
	used(at("1.11.0", "firecracker"), at("1.11.0", "jailer"), api.OriginInstalled)
	if all, _ := l.List(t.Context()); len(all) != 6 || all[0].Version != "2.0.0" || all[1].Version != "1.12.0" || all[0].Error == "" || all[1].Error == "" || all[4].Version != "1.9.0" || all[5].Version != "1.14.0" {
		t.Errorf("listed %+v", all)
	}

	own := write(t, map[string][]byte{"bin/firecracker": vmmOf("1.8.0"), "bin/jailer": jailerOf("1.8.0"), "other/jailer": jailerOf("1.8.0")})
	l.Binary = filepath.Join(own, "bin/firecracker")
	used(l.Binary, filepath.Join(own, "bin/jailer"), api.OriginConfig)
	l.Jailer = filepath.Join(own, "other/jailer")
	used(l.Binary, l.Jailer, api.OriginConfig)
	l.Binary = ""
	used(at("1.11.0", "firecracker"), l.Jailer, api.OriginInstalled)
	l.Jailer, l.Binary = "", put(filepath.Join(path, "fc"), vmmOf("1.8.0"))
	l.Binary = filepath.Base(l.Binary)
	used("fc", "jailer", api.OriginConfig)

	// What is configured and not there is not silently replaced by something else.
	l.Binary = "/absent/firecracker"
	if v, err := l.Show(t.Context(), Name); err != nil || v.Path != l.Binary || v.Error == "" || v.Usable || !strings.Contains(v.Why, l.Binary) {
		t.Errorf("absent: %+v, %v", v, err)
	}
	if _, err := l.Show(t.Context(), "xen"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("another: %v", err)
	}
}

// What was changed since it was installed is not run, and it is said where nothing else is there to run.
func TestLocateLooksAtDigests(t *testing.T) {
	l := newLibrary(t, nil)
	install(t, l, "1.10.0")
	install(t, l, "1.11.0")
	located := func(want string) {
		t.Helper()
		if program, _, err := l.Locate(); err != nil || program != filepath.Join(l.versionDir(want), progVMM) {
			t.Errorf("want %s, got %s, %v", want, program, err)
		}
	}
	located("1.11.0")
	jailer := filepath.Join(l.versionDir("1.11.0"), progJailer)
	b, err := os.ReadFile(jailer)
	if err != nil {
		t.Fatal(err)
	}
	put := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(jailer, append(slices.Clone(b), '!'))
	located("1.10.0")
	put(jailer, b)
	located("1.11.0")
	put(jailer, append(b[:len(b)-1:len(b)-1], b[len(b)-1]+1)) // of the same size
	located("1.10.0")
	put(filepath.Join(l.versionDir("1.10.0"), progVMM), nil)
	if program, _, err := l.Locate(); vm.CodeOf(err) != vm.CodeMissing || !strings.Contains(err.Error(), jailer+" was changed") || !strings.Contains(vm.HintOf(err), "vmm install") {
		t.Errorf("got %s, %v", program, err)
	}
}

func FuzzReadSums(f *testing.F) {
	f.Add(sum(nil) + "  a/firecracker\n" + sum(nil) + " *b\n")
	f.Add(sum(nil))
	f.Fuzz(func(t *testing.T, text string) {
		s, err := readSums(strings.NewReader(text))
		for name, hex := range s {
			if !sumPattern.MatchString(hex) || strings.Contains(name, "/") && name != "/" {
				t.Errorf("%q: %q", name, hex)
			}
		}
		_ = err
	})
}

// FuzzUnpack: whatever comes, nothing but two names is written.
func FuzzUnpack(f *testing.F) {
	f.Add(tgz(f, release("1.12.1")))
	f.Add(zipped(f, release("1.12.1")))
	f.Add(vmmOf("1.12.1"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := write(t, map[string][]byte{"in/a": content, "out/.keep": nil})
		_, _ = unpack(t.Context(), filepath.Join(dir, "in/a"), "a", filepath.Join(dir, "out"))
		for _, name := range below(t, dir) {
			switch name {
			case "in", "in/a", "out", "out/.keep", "out/firecracker", "out/jailer":
			default:
				t.Errorf("wrote %q", name)
			}
		}
	})
}
