package sshkey

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/vm"
)

// ensureEnv makes this test binary a process that asks for the key at that path, from several goroutines.
const ensureEnv = "BANGER_TEST_ENSURE"

func TestMain(m *testing.M) {
	if path := os.Getenv(ensureEnv); path != "" {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until all may begin
		for _, k := range ensureAtOnce(path, 8) {
			fmt.Println(k)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ensureAtOnce calls Ensure n times at the same time and returns the public keys, or errors.
func ensureAtOnce(path string, n int) []string {
	got := make([]string, n)
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			k, err := Ensure(context.Background(), path, "banger")
			if got[i] = k.Public; err != nil {
				got[i] = err.Error()
			}
		})
	}
	close(begin)
	all.Wait()
	return got
}

// one checks that all callers got one key, that it is the one on the disk, in both files, and that nothing else is there.
func one(t *testing.T, path string, got []string) {
	t.Helper()
	private, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	for _, k := range got {
		if k != want {
			t.Fatalf("a caller got %q, on the disk is %q", k, want)
		}
	}
	if public, err := os.ReadFile(path + ".pub"); err != nil || string(public) != want+" banger\n" {
		t.Fatalf("%s.pub has %q, %v; want %q", path, public, err, want)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 2 {
		t.Errorf("in the directory are %v, %v", entries, err)
	}
}

func TestEnsureAtOnce(t *testing.T) {
	for range 10 {
		path := filepath.Join(t.TempDir(), "ssh", "id_ed25519")
		one(t, path, ensureAtOnce(path, 8))
	}
}

// TestEnsureByProcesses: a daemon and another, or one of its clients, may ask at the same time.
func TestEnsureByProcesses(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "ssh", "id_ed25519")
		var outs [2]strings.Builder
		var processes [2]*exec.Cmd
		begin, release, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		for i := range processes {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), ensureEnv+"="+path)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = begin, &outs[i], os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			processes[i] = cmd
		}
		_ = begin.Close()
		_ = release.Close()
		var got []string
		for i, cmd := range processes {
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.Split(strings.TrimSpace(outs[i].String()), "\n")...)
		}
		if len(got) != 16 {
			t.Fatalf("got %q", got)
		}
		one(t, path, got)
	}
}

// TestEnsureAfterACrash: what a crash can leave is mended, or refused with words.
func TestEnsureAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id_ed25519")
	first, err := Ensure(t.Context(), path, "banger")
	if err != nil {
		t.Fatal(err)
	}
	other, err := Ensure(t.Context(), filepath.Join(t.TempDir(), "id"), "x")
	if err != nil {
		t.Fatal(err)
	}
	for name, public := range map[string]string{
		"empty": "", "torn": first.Public[:30], "of another key": other.Public + " x\n", "none of all": "hello\n",
	} {
		if err := os.WriteFile(path+".pub", []byte(public), 0o644); err != nil {
			t.Fatal(err)
		}
		if k, err := Ensure(t.Context(), path, "banger"); err != nil || k != first {
			t.Errorf("public half %s: %v, %v", name, k, err)
		}
		one(t, path, nil)
	}
	if err := os.Remove(path + ".pub"); err != nil {
		t.Fatal(err)
	}
	if k, err := Ensure(t.Context(), path, "banger"); err != nil || k != first {
		t.Errorf("no public half: %v, %v", k, err)
	}
	one(t, path, nil)

	edited := first.Public + " my own words\n"
	if err := os.WriteFile(path+".pub", []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), path, "banger"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path + ".pub"); err != nil || string(b) != edited {
		t.Errorf("the user's comment became %q, %v", b, err)
	}

	for name, private := range map[string]string{"empty": "", "torn": first.PrivatePEM[:len(first.PrivatePEM)/2], "zeroes": strings.Repeat("\x00", 399)} {
		if err := os.WriteFile(path, []byte(private), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := Ensure(t.Context(), path, "banger")
		if vm.CodeOf(err) != vm.CodeCorrupt || !strings.Contains(err.Error(), path) || vm.HintOf(err) == "" || k != (Key{}) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != private {
			t.Errorf("%s: the file became %q, %v", name, b, err)
		}
	}
}

func TestEnsureCannot(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "file", "id"), filepath.Join(dir, "link")} {
		if k, err := Ensure(t.Context(), path, "banger"); err == nil || errors.Is(err, os.ErrExist) || k != (Key{}) {
			t.Errorf("%s: %+v, %v", path, k, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPin(t *testing.T) {
	dir := t.TempDir()
	k, err := Ensure(t.Context(), filepath.Join(dir, "key"), "web")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Pin(t.Context(), filepath.Join(dir, "known_hosts"), "web.banger", k); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "known_hosts"))
	if err != nil {
		t.Fatal(err)
	}
	marker, hosts, key, _, rest, err := ssh.ParseKnownHosts(b)
	if err != nil || marker != "" || len(hosts) != 1 || hosts[0] != "web.banger" || len(rest) != 0 ||
		!strings.HasPrefix(k.Public, key.Type()) || string(ssh.MarshalAuthorizedKey(key)) != k.Public+"\n" {
		t.Errorf("pinned %q, %v", b, err)
	}
}
