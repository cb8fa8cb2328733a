package binary

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"banger/internal/testhost"
	"banger/internal/vmm/firecracker"
)

// program is a static ELF program for x86-64 that prints what it was made with and ends well.
func program(says string) []byte {
	const base, head = 0x400000, 64 + 56
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip+16]
		0xba, 0, 0, 0, 0, // mov edx, length
		0x0f, 0x05, // syscall
		0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, // exit(0)
	}
	binary.LittleEndian.PutUint32(code[18:], uint32(len(says)))
	body := append(code, says...)
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put([]uint16{2, 62})                                                      // ET_EXEC, EM_X86_64
	put(uint32(1))                                                            // version
	put([]uint64{base + head, 64, 0})                                         // entry, program headers, sections
	put(uint32(0))                                                            // flags
	put([]uint16{64, 56, 1, 64, 0, 0})                                        // sizes and counts
	put([]uint32{1, 5})                                                       // PT_LOAD, readable and executable
	put([]uint64{0, base, base})                                              // offset, addresses
	put([]uint64{uint64(head + len(body)), uint64(head + len(body)), 0x1000}) // sizes, alignment
	return append(b.Bytes(), body...)
}

func vmmOf(version string) []byte    { return program("Firecracker v" + version + "\n\nexit\n") }
func jailerOf(version string) []byte { return program("Jailer v" + version + "\n") }

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// entry is one of an archive.
type entry struct {
	name    string
	content []byte
	link    string // a symbolic link to it
}

// release are the entries of the archive of one version, as the project makes them.
func release(version string) []entry {
	dir, suffix := "release-v"+version+"-x86_64/", "-v"+version+"-x86_64"
	return []entry{
		{name: dir + "LICENSE", content: []byte("free")},
		{name: dir + "firecracker" + suffix + ".debug", content: []byte("symbols")},
		{name: dir + "firecracker" + suffix, content: vmmOf(version)},
		{name: dir + "jailer" + suffix, content: jailerOf(version)},
		{name: dir + "SHA256SUMS", content: fmt.Appendf(nil, "%s  firecracker%s\n%s  jailer%s\n", sum(vmmOf(version)), suffix, sum(jailerOf(version)), suffix)},
	}
}

// with replaces what an entry has.
func with(entries []entry, part string, content []byte) []entry {
	entries = slices.Clone(entries)
	for i := range entries {
		if strings.Contains(entries[i].name, part) && !strings.HasSuffix(entries[i].name, ".debug") {
			entries[i].content = content
		}
	}
	return entries
}

func without(entries []entry, part string) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return strings.Contains(e.name, part) })
}

func tgz(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o4755, Size: int64(len(e.content))}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		f, err := w.Create(e.name)
		if err == nil {
			_, err = f.Write(e.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// site is a server of releases.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte // by path
	asked []string
}

func newSite(t testing.TB, tls bool) *site {
	t.Helper()
	s := &site{files: map[string][]byte{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path)
		content, ok := s.files[r.URL.Path]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
	}))
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *site) put(path string, content []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = content
	return s.URL + path
}

func (s *site) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// newLibrary has 1.12.1 pinned and gets releases from s; PATH is empty.
func newLibrary(t testing.TB, s *site) *Library {
	t.Helper()
	bin := t.TempDir()
	if tt, ok := t.(interface{ Setenv(key, value string) }); ok {
		tt.Setenv("PATH", bin)
	}
	l := New(Config{
		Dir: filepath.Join(testhost.Dir(t), "vmms"),
		Programs: Programs{
			Tested: "1.12.1", Supported: firecracker.Supported, Supports: firecracker.Supports,
			Version: firecracker.Version, Resolve: firecracker.Program,
		},
	})
	l.Programs.Probe = firecracker.New(firecracker.Config{Locate: l.Locate, NoJail: true, StateDir: bin}).Probe
	l.pins = map[string]pin{"1.12.1": {sum(vmmOf("1.12.1")), sum(jailerOf("1.12.1"))}}
	if s != nil {
		l.Release = func(version string) string {
			return s.URL + "/v" + version + "/firecracker-v" + version + "-x86_64.tgz"
		}
		l.client = s.Client()
		l.client.CheckRedirect = newClient().CheckRedirect
	}
	t.Cleanup(l.Close)
	return l
}

// write makes files below a new directory and returns it.
func write(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := testhost.Dir(t)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// below lists all that lies in a directory.
func below(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if path != dir {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func whole(version string) []string {
	dir := "firecracker/" + version
	return []string{"firecracker", dir, dir + "/firecracker", dir + "/jailer", dir + "/vmm.json"}
}
