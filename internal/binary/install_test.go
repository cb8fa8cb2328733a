package binary

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

func TestInstallRelease(t *testing.T) {
	s := newSite(t, true)
	l := newLibrary(t, s)
	archive := tgz(t, release("1.12.1"))
	url := s.put("/v1.12.1/firecracker-v1.12.1-x86_64.tgz", archive)
	s.put("/v1.12.1/firecracker-v1.12.1-x86_64.tgz.sha256.txt", []byte(sum(archive)+"  firecracker-v1.12.1-x86_64.tgz\n"))
	if _, _, err := l.Locate(); vm.CodeOf(err) != vm.CodeMissing || !strings.Contains(vm.HintOf(err), "vmm install") {
		t.Errorf("before: %v", err)
	}
	var events []string
	v, err := l.Install(t.Context(), Name, api.InstallRequest{}, func(e vm.Event) {
		events = append(events, strings.TrimSpace(e.Name+" "+e.Stage+" "+e.Status+" "+e.Text))
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(l.Dir, "firecracker/1.12.1")
	want := api.VMM{
		Name: "firecracker", Version: "1.12.1", Origin: api.OriginInstalled, InUse: true, Path: dir + "/firecracker", Digest: "sha256:" + sum(vmmOf("1.12.1")),
		Jailer: dir + "/jailer", JailerDigest: "sha256:" + sum(jailerOf("1.12.1")), Source: url, Checked: api.CheckedPinned, InstalledAt: v.InstalledAt,
	}
	if v != want || time.Since(v.InstalledAt) > time.Minute {
		t.Errorf("installed %+v, want %+v", v, want)
	}
	if got := []string{"firecracker vmm begin " + url, "firecracker vmm  downloading " + url, "firecracker vmm  checking firecracker-v1.12.1-x86_64.tgz", "firecracker vmm end " + url}; !slices.Equal(events, got) {
		t.Errorf("events %q, want %q", events, got)
	}
	if got := below(t, l.Dir); !slices.Equal(got, whole("1.12.1")) {
		t.Errorf("there is %q", got)
	}
	for _, path := range []string{v.Path, v.Jailer} {
		st, err := os.Stat(path)
		if err != nil || st.Mode() != 0o755 || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	if vmm, jailer, err := l.Locate(); vmm != v.Path || jailer != v.Jailer || err != nil {
		t.Errorf("located %q, %q, %v", vmm, jailer, err)
	}
	asked := s.requests()
	if again, err := l.Install(t.Context(), Name, api.InstallRequest{Version: "v1.12.1"}, nil); again != v || err != nil || s.requests() != asked {
		t.Errorf("again: %+v, %v, after %d requests", again, err, s.requests()-asked)
	}
	if err := os.WriteFile(v.Path, []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	if all, err := l.List(t.Context()); err != nil || len(all) != 1 || !strings.Contains(all[0].Error, "changed since it was installed") {
		t.Errorf("damaged: %+v, %v", all, err)
	}
	if again, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil); err != nil || again.Digest != v.Digest || again.Error != "" || len(below(t, l.Dir)) != 5 {
		t.Errorf("repaired: %+v, %v, %q", again, err, below(t, l.Dir))
	}
}

// TestSources: whatever the programs come in, the same is installed.
func TestSources(t *testing.T) {
	fire, jail := vmmOf("1.12.1"), jailerOf("1.12.1")
	dir := write(t, map[string][]byte{
		"release.tgz":                        tgz(t, release("1.12.1")),
		"package-1-py3-none-any.whl":         zipped(t, []entry{{name: "a/b/bin/firecracker", content: fire}, {name: "a/firecracker.py"}, {name: "a/b/bin/jailer", content: jail}}),
		"no-suffix":                          zipped(t, []entry{{name: "jailer", content: jail}, {name: "firecracker", content: fire}}),
		"up.tgz":                             tgz(t, []entry{{name: "../../../up/firecracker", content: fire}, {name: "/jailer", content: jail}, {name: "../other", content: fire}}),
		"dir/firecracker":                    fire,
		"dir/jailer":                         jail,
		"dir/firecracker.txt":                nil,
		"release/firecracker-v1.12.1-x86_64": fire,
		"release/jailer-v1.12.1-x86_64":      jail,
		"many/firecracker-v1.12.1":           fire,
		"many/jailer-v1.12.1":                jail,
		"many/jailer-v1.13.0":                jailerOf("1.13.0"),
		"plain/fc":                           fire,
		"plain/jailer":                       jail,
	})
	for _, from := range []string{
		"release.tgz", "package-1-py3-none-any.whl", "no-suffix", "up.tgz", "dir", "dir/firecracker", "release", "release/firecracker-v1.12.1-x86_64",
		"many/firecracker-v1.12.1", "plain/fc",
	} {
		l := newLibrary(t, nil)
		from = filepath.Join(dir, from)
		v, err := l.Install(t.Context(), Name, api.InstallRequest{From: from}, nil)
		if err != nil || v.Version != "1.12.1" || v.Source != from || v.Checked != api.CheckedPinned || v.Digest != "sha256:"+sum(fire) || v.JailerDigest != "sha256:"+sum(jail) {
			t.Errorf("%s: %+v, %v", from, v, err)
		}
		if got := below(t, l.Dir); !slices.Equal(got, whole("1.12.1")) {
			t.Errorf("%s: there is %q", from, got)
		}
	}
}

// TestVouched: a version that is not pinned takes somebody's word.
func TestVouched(t *testing.T) {
	s := newSite(t, true)
	archive := tgz(t, without(release("1.13.0"), "SUMS"))
	plain := s.put("/plain/a.tgz", archive)
	beside := s.put("/beside/a.tgz", archive)
	s.put("/beside/a.tgz.sha256.txt", []byte(strings.ToUpper(sum(archive))+" *dist/a.tgz\n"))
	bare := s.put("/bare/a.tgz", archive)
	s.put("/bare/a.tgz.sha256.txt", []byte(sum(archive)))
	all := s.put("/all/a.tgz", archive)
	s.put("/all/SHA256SUMS", []byte("# all\n"+sum(nil)+"  b.tgz\n"+sum(archive)+"  ./a.tgz\n"))
	fire, jail := vmmOf("1.13.0"), jailerOf("1.13.0")
	sums := sum(fire) + "  firecracker\n" + sum(jail) + "  jailer\n"
	dir := write(t, map[string][]byte{
		"a.tgz": archive, "b/a.tgz": archive, "b/a.tgz.sha256.txt": []byte(sum(archive) + "  a.tgz"),
		"c/firecracker": fire, "c/jailer": jail, "d/firecracker": fire, "d/jailer": jail, "d/SHA256SUMS": []byte(sums),
	})
	for _, c := range []struct {
		from    string
		given   []string
		checked string
	}{
		{beside, nil, api.CheckedSums},
		{bare, nil, api.CheckedSums},
		{all, nil, api.CheckedSums},
		{plain, []string{sum(archive)}, api.CheckedGiven},
		{plain, []string{"sha256:" + strings.ToUpper(sum(fire)), sum(jail)}, api.CheckedGiven},
		{dir + "/a.tgz", []string{sum(archive)}, api.CheckedGiven},
		{dir + "/b/a.tgz", nil, api.CheckedSums},
		{dir + "/c", []string{sum(fire), sum(jail)}, api.CheckedGiven},
		{dir + "/d", nil, api.CheckedSums},
		{dir + "/d/firecracker", nil, api.CheckedSums},
	} {
		l := newLibrary(t, s)
		v, err := l.Install(t.Context(), Name, api.InstallRequest{From: c.from, SHA256: c.given}, nil)
		if err != nil || v.Version != "1.13.0" || v.Checked != c.checked {
			t.Errorf("%s %q: %+v, %v", c.from, c.given, v, err)
		}
	}
}

// TestOneFlight: callers who want the same version share one download.
func TestOneFlight(t *testing.T) {
	s := newSite(t, true)
	l := newLibrary(t, s)
	archive := tgz(t, release("1.12.1"))
	land, first := make(chan struct{}), make(chan struct{}, 9)
	var mu sync.Mutex
	downloads := 0
	s.handle(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			http.NotFound(w, r)
			return
		}
		mu.Lock()
		downloads++
		mu.Unlock()
		first <- struct{}{}
		<-land
		_, _ = w.Write(archive)
	})
	var group sync.WaitGroup
	joined := make(chan struct{}, 9)
	for i := range 3 {
		group.Go(func() {
			var once sync.Once
			v, err := l.Install(t.Context(), Name, api.InstallRequest{Version: []string{"", "v1.12.1", "1.12.1"}[i]}, func(vm.Event) { once.Do(func() { joined <- struct{}{} }) })
			if err != nil || v.Version != "1.12.1" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	<-first
	for range 3 {
		<-joined
	}
	close(land)
	group.Wait()
	if downloads != 1 {
		t.Errorf("%d downloads", downloads)
	}
}

// TestAtOnce: the same version from several sources, which are several flights.
func TestAtOnce(t *testing.T) {
	l := newLibrary(t, nil)
	var group sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("%d.tgz", i)
		dir := write(t, map[string][]byte{name: tgz(t, release("1.12.1"))})
		group.Go(func() {
			if v, err := l.Install(t.Context(), Name, api.InstallRequest{From: filepath.Join(dir, name)}, nil); err != nil || v.Error != "" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	group.Wait()
	if got := below(t, l.Dir); !slices.Equal(got, whole("1.12.1")) {
		t.Errorf("there is %q", got)
	}
}

// TestReconcile: what an install that was killed leaves is gone at the next start, and never was a version.
func TestReconcile(t *testing.T) {
	l := newLibrary(t, nil)
	if err := l.Reconcile(t.Context()); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	dir := write(t, map[string][]byte{"firecracker": vmmOf("1.12.1"), "jailer": jailerOf("1.12.1")})
	if _, err := l.Install(t.Context(), Name, api.InstallRequest{From: dir}, nil); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(l.Dir, ".staging-123", "out")
	if err := errors.Join(os.MkdirAll(left, 0o755), os.WriteFile(filepath.Join(left, "firecracker"), vmmOf("1.13.0"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if all, err := l.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	for range 2 {
		if err := l.Reconcile(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := below(t, l.Dir); !slices.Equal(got, whole("1.12.1")) {
		t.Errorf("there is %q", got)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		code vm.Code
	}{
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, vm.CodeNoSpace},
		{fmt.Errorf("x: %w", syscall.EDQUOT), vm.CodeNoSpace},
		{context.Canceled, vm.CodeCanceled},
		{vm.Errorf(vm.CodeUnavailable, "x"), vm.CodeUnavailable},
		{errors.New("x"), vm.CodeInternal},
	} {
		if got := explain("install", c.err); vm.CodeOf(got) != c.code || !strings.HasPrefix(got.Error(), "install: ") {
			t.Errorf("%v: %v (%s), want %s", c.err, got, vm.CodeOf(got), c.code)
		}
	}
}
