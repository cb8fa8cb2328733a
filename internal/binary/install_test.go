package binary

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

func TestInstallRefuses(t *testing.T) {
	s := newSite(t, true)
	insecure := newSite(t, false)
	good := release("1.12.1")
	newer := tgz(t, release("1.13.0"))
	archive := func(name string, entries []entry) string { return s.put("/"+name+"/"+name+".tgz", tgz(t, entries)) }
	wrong, bitten := sum([]byte("wrong")), program("Firecracker v1.12.1\n\nEvil\n")
	s.put("/sums/sums.tgz.sha256.txt", []byte(wrong+"  sums.tgz"))
	s.put("/bare/bare.tgz.sha256.txt", []byte(wrong))
	s.put("/parts/SHA256SUMS", []byte(wrong+"  jailer-v1.12.1-x86_64"))
	insecure.put("/a.tgz.sha256.txt", []byte(sum(newer)+"  a.tgz"))
	machine, dynamic := vmmOf("1.12.1"), vmmOf("1.12.1")
	machine[18] = 183 // EM_AARCH64
	dynamic[64] = 3   // PT_INTERP
	dir := write(t, map[string][]byte{
		"alone/firecracker": vmmOf("1.12.1"), "none/README": nil, "empty": nil, "page.tgz": []byte("<html>"), "cut.tgz": newer[:len(newer)/2], "cut.zip": []byte("PK\x03\x04zip"),
		"two/firecracker": vmmOf("1.12.1"), "two/firecracker-v1.12.1-x86_64": vmmOf("1.12.1"), "two/jailer": jailerOf("1.12.1"),
		"half/firecracker": vmmOf("1.13.0"), "half/jailer": jailerOf("1.13.0"), "new.tgz": newer,
		"script/firecracker": []byte("#!/bin/sh\necho Firecracker v1.12.1\n"), "script/jailer": []byte("#!/bin/sh\n"),
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r    api.InstallRequest
		code vm.Code
		want []string
	}{
		"not a version":     {api.InstallRequest{Version: "../../etc"}, vm.CodeInvalid, []string{`"../../etc" is not a version`}},
		"too old":           {api.InstallRequest{Version: "1.7.0"}, vm.CodeInvalid, []string{"version 1.7.0 is not supported", firecracker18}},
		"too new":           {api.InstallRequest{Version: "2.0.0"}, vm.CodeInvalid, []string{"2.0.0", firecracker18}},
		"not a digest":      {api.InstallRequest{SHA256: []string{"12"}}, vm.CodeInvalid, []string{`"12" is not a SHA-256 digest`}},
		"relative":          {api.InstallRequest{From: "a.tgz"}, vm.CodeInvalid, []string{"neither a URL nor an absolute path"}},
		"not http":          {api.InstallRequest{From: "ftp://h/a.tgz"}, vm.CodeInvalid, []string{"not an http or https URL"}},
		"no such file":      {api.InstallRequest{From: dir + "/absent"}, vm.CodeNotFound, []string{"absent"}},
		"no such release":   {api.InstallRequest{Version: "1.99.0"}, vm.CodeNotFound, []string{"install firecracker 1.99.0: download " + s.URL + "/v1.99.0/", "404 Not Found"}},
		"other than pinned": {api.InstallRequest{From: archive("pin", without(with(good, "firecracker-v", bitten), "SUMS"))}, vm.CodeInvalid, []string{sum(bitten), sum(vmmOf("1.12.1"))}},
		"other jailer":      {api.InstallRequest{From: archive("jail", without(with(good, "jailer", bitten), "SUMS"))}, vm.CodeInvalid, []string{sum(bitten), sum(jailerOf("1.12.1"))}},
		"pinned in name":    {api.InstallRequest{Version: "1.12.1", From: dir + "/new.tgz", SHA256: []string{sum(newer)}}, vm.CodeInvalid, []string{sum(vmmOf("1.13.0")), sum(vmmOf("1.12.1"))}},
		"sums beside":       {api.InstallRequest{From: archive("sums", good)}, vm.CodeInvalid, []string{"sums.tgz has SHA-256 " + sum(tgz(t, good)), "says " + wrong}},
		"a sum beside":      {api.InstallRequest{From: archive("bare", good)}, vm.CodeInvalid, []string{sum(tgz(t, good)), wrong}},
		"sums of parts":     {api.InstallRequest{From: archive("parts", good)}, vm.CodeInvalid, []string{sum(jailerOf("1.12.1")), wrong}},
		"its own sums":      {api.InstallRequest{From: archive("own", with(good, "SUMS", []byte(wrong+" jailer-v1.12.1-x86_64")))}, vm.CodeInvalid, []string{sum(jailerOf("1.12.1")), "its own SHA256SUMS says " + wrong}},
		"given":             {api.InstallRequest{From: archive("given", good), SHA256: []string{wrong}}, vm.CodeInvalid, []string{sum(tgz(t, good)), "--sha256 says " + wrong}},
		"given of a dir":    {api.InstallRequest{From: dir + "/half", SHA256: []string{wrong}}, vm.CodeInvalid, []string{sum(vmmOf("1.13.0")), wrong}},
		"nobody vouches":    {api.InstallRequest{From: archive("new", release("1.13.0"))}, vm.CodeInvalid, []string{"nothing says what", sum(vmmOf("1.13.0"))}},
		"half vouched for":  {api.InstallRequest{From: dir + "/half", SHA256: []string{sum(vmmOf("1.13.0"))}}, vm.CodeInvalid, []string{"nothing says what"}},
		"http vouches":      {api.InstallRequest{From: insecure.put("/a.tgz", newer)}, vm.CodeInvalid, []string{"nothing says what"}},
		"another version":   {api.InstallRequest{Version: "1.13.1", From: dir + "/new.tgz", SHA256: []string{sum(newer)}}, vm.CodeInvalid, []string{"is version 1.13.0, not 1.13.1"}},
		"unsupported":       vouched(t, s, "old", release("1.5.0"), "version 1.5.0 is not supported"),
		"two versions":      vouched(t, s, "mixed", without(with(release("1.13.0"), "jailer", jailerOf("1.13.1")), "SUMS"), "is version 1.13.0, its jailer 1.13.1"),
		"swapped":           vouched(t, s, "swapped", without(with(release("1.13.0"), "firecracker-v", jailerOf("1.13.0")), "SUMS"), "says that it is Jailer"),
		"says nothing":      vouched(t, s, "mute", without(with(release("1.13.0"), "firecracker-v", program("")), "SUMS"), "--version: it says"),
		"claims the tested": vouched(t, s, "claims", without(with(good, "firecracker-v", bitten), "SUMS"), sum(bitten)+", banger's own list for 1.12.1 says "+sum(vmmOf("1.12.1"))),
		"a page":            {api.InstallRequest{From: dir + "/page.tgz"}, vm.CodeInvalid, []string{"neither a .tgz nor a .zip nor a program"}},
		"a page of the web": {api.InstallRequest{From: s.put("/page.tgz", []byte("<html>sign in"))}, vm.CodeInvalid, []string{"neither a .tgz"}},
		"empty":             {api.InstallRequest{From: dir + "/empty"}, vm.CodeInvalid, []string{"neither a .tgz"}},
		"a pipe":            {api.InstallRequest{From: dir + "/fifo"}, vm.CodeInvalid, []string{"neither a file nor a directory"}},
		"cut off":           {api.InstallRequest{From: dir + "/cut.tgz"}, vm.CodeInvalid, []string{"unpack", "cut.tgz", "EOF"}},
		"no zip":            {api.InstallRequest{From: dir + "/cut.zip"}, vm.CodeInvalid, []string{"unpack", "cut.zip"}},
		"nothing in it":     {api.InstallRequest{From: dir + "/none"}, vm.CodeInvalid, []string{"has no firecracker"}},
		"no jailer":         {api.InstallRequest{From: dir + "/alone/firecracker"}, vm.CodeInvalid, []string{"has no jailer"}},
		"the jailer":        {api.InstallRequest{From: dir + "/half/jailer"}, vm.CodeInvalid, []string{"is the jailer"}},
		"two of them":       {api.InstallRequest{From: dir + "/two"}, vm.CodeInvalid, []string{"there are two"}},
		"a link":            {api.InstallRequest{From: archive("link", []entry{{name: "firecracker", link: "/bin/sh"}, {name: "jailer", content: jailerOf("1.12.1")}})}, vm.CodeInvalid, []string{"firecracker is not a file"}},
		"a script":          {api.InstallRequest{From: dir + "/script"}, vm.CodeInvalid, []string{"is not a program"}},
		"another machine":   {api.InstallRequest{From: archive("arm", with(good, "firecracker-v", machine))}, vm.CodeInvalid, []string{"EM_AARCH64", "not for x86-64"}},
		"not static":        {api.InstallRequest{From: archive("dyn", with(good, "firecracker-v", dynamic))}, vm.CodeInvalid, []string{"not linked statically"}},
		"too much":          {api.InstallRequest{From: archive("big", []entry{{name: "firecracker", content: make([]byte, maxProgram+1)}})}, vm.CodeInvalid, []string{"firecracker has more than 128 MiB"}},
		"sums without end":  {api.InstallRequest{From: archive("endless", with(good, "SUMS", make([]byte, maxSums+1)))}, vm.CodeInvalid, []string{"file of digests"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLibrary(t, s)
			v, err := l.Install(t.Context(), Name, c.r, nil)
			if err == nil {
				t.Fatalf("installed %+v", v)
			}
			if vm.CodeOf(err) != c.code {
				t.Errorf("code %s of %v, want %s", vm.CodeOf(err), err, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			if got := below(t, l.Dir); len(got) != 0 {
				t.Errorf("left %q", got)
			}
		})
	}
	l := newLibrary(t, s)
	if _, err := l.Install(t.Context(), "qemu", api.InstallRequest{}, nil); vm.CodeOf(err) != vm.CodeNotFound || !strings.Contains(vm.HintOf(err), "distribution") {
		t.Errorf("qemu: %v", err)
	}
}

const firecracker18 = "want 1.8 or later, below 2"

type refusal = struct {
	r    api.InstallRequest
	code vm.Code
	want []string
}

// vouched is an archive that only its programs' words speak against.
func vouched(t *testing.T, s *site, name string, entries []entry, want string) refusal {
	b := tgz(t, entries)
	code := vm.CodeInvalid
	if name == "mute" {
		code = vm.CodeMissing
	}
	return refusal{api.InstallRequest{From: s.put("/"+name+".tgz", b), SHA256: []string{sum(b)}}, code, []string{want}}
}

// TestNothingUncheckedIsRun: not even for its version.
func TestNothingUncheckedIsRun(t *testing.T) {
	l := newLibrary(t, nil)
	l.Programs.Version = func(_ context.Context, program string) (string, string, error) {
		t.Errorf("ran %s", program)
		return "", "", errors.New("ran")
	}
	dir := write(t, map[string][]byte{"firecracker": vmmOf("1.13.0"), "jailer": jailerOf("1.13.0")})
	for _, r := range []api.InstallRequest{{From: dir}, {From: dir, Version: "1.12.1"}, {From: dir, SHA256: []string{hex.EncodeToString(make([]byte, 32))}}} {
		if _, err := l.Install(t.Context(), Name, r, nil); err == nil {
			t.Errorf("%+v passed", r)
		}
	}
}

// handle serves every request by f.
func (s *site) handle(f http.HandlerFunc) { s.Config.Handler = f }

func TestDownloadFails(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		code    vm.Code
		want    string
	}{
		"server error": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, vm.CodeUnavailable, "502"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("\x1f\x8b"))
		}, vm.CodeUnavailable, "EOF"},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, vm.CodeUnavailable, "EOF"},
		"to http": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x", http.StatusFound)
		}, vm.CodeUnavailable, "from https to http"},
		"round in circle": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, vm.CodeUnavailable, "without end"},
		"forbidden":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, vm.CodeNotFound, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, true)
			s.handle(c.handler)
			l := newLibrary(t, s)
			_, err := l.Install(t.Context(), Name, api.InstallRequest{From: s.URL + "/a.tgz?token=secret#x"}, nil)
			if vm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) || vm.HintOf(err) == "" || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v (%s; hint %q), want %s with %q", err, vm.CodeOf(err), vm.HintOf(err), c.code, c.want)
			}
			if got := below(t, l.Dir); len(got) != 0 {
				t.Errorf("left %q", got)
			}
		})
	}
	s := newSite(t, true)
	l := newLibrary(t, s)
	s.Close()
	if _, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil); vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(vm.HintOf(err), "HTTPS_PROXY") {
		t.Errorf("nobody there: %v, hint %q", err, vm.HintOf(err))
	}
}

// slow answers with a beginning and then nothing, until the client has gone.
func slow(begun, gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "\x1f\x8b")
		w.(http.Flusher).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}
}

func TestInstallEnds(t *testing.T) {
	for name, end := range map[string]func(l *Library, cancel func()){
		"cancelled": func(_ *Library, cancel func()) { cancel() },
		"closed":    func(l *Library, _ func()) { l.Close() },
	} {
		begun, gone := make(chan struct{}, 1), make(chan struct{}, 1)
		s := newSite(t, true)
		s.handle(slow(begun, gone))
		l := newLibrary(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := l.Install(ctx, Name, api.InstallRequest{}, nil)
			failed <- err
		}()
		<-begun
		end(l, cancel)
		if err := <-failed; vm.CodeOf(err) != vm.CodeCanceled {
			t.Errorf("%s: %v", name, err)
		}
		<-gone
		l.Close() // waits until it has cleaned up
		if got := below(t, l.Dir); len(got) != 0 {
			t.Errorf("%s: left %q", name, got)
		}
		if _, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil); vm.CodeOf(err) != vm.CodeCanceled {
			t.Errorf("%s: after the end: %v", name, err)
		}
		cancel()
	}
}

func TestDownloadStandsStill(t *testing.T) {
	s := newSite(t, true)
	s.handle(slow(make(chan struct{}, 1), make(chan struct{}, 1))) // room for one request: there must be no second
	l := newLibrary(t, s)
	l.stall = 50 * time.Millisecond
	_, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil)
	if vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Errorf("%v", err)
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
