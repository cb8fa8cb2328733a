package binary

import (
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/api"
	"banger/internal/vm"
)

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
