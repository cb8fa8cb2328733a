package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

var testTime = time.Unix(1_000_000_000, 0)

// plant makes the directory of a kernel whose files are there in name.
func plant(t *testing.T, l *Library, digit string) (digest string) {
	t.Helper()
	name := strings.Repeat(digit, 64)
	for _, file := range []string{fileVmlinux, fileModules, fileRecord, dirBoot + "/" + fileOrder} {
		full := filepath.Join(l.Dir, name, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return "sha256:" + name
}

func TestReconcile(t *testing.T) {
	pin := func(digests []string, err error) func(context.Context) ([]string, error) {
		return func(context.Context) ([]string, error) { return digests, err }
	}
	name := func(digit string) string { return strings.Repeat(digit, 64) }
	for title, c := range map[string]struct {
		pinned func(context.Context) ([]string, error)
		want   []string
		err    string
	}{
		"row and pin stay, leftovers go":     {pin([]string{"sha256:" + name("2"), "not a digest"}, nil), []string{name("1"), name("2"), "README"}, ""},
		"pins unknown: only staging goes":    {nil, []string{name("1"), name("2"), name("3"), "README"}, ""},
		"pins unreadable: only staging goes": {pin([]string{"sha256:" + name("2")}, errors.New("no table")), []string{name("1"), name("2"), name("3"), "README"}, "no table"},
	} {
		t.Run(title, func(t *testing.T) {
			l, rows := newLibrary(t)
			l.Pinned = c.pinned
			ctx := t.Context()
			row := vm.Kernel{Name: "one", Digest: plant(t, l, "1")}
			if err := rows.PutKernel(ctx, row); err != nil {
				t.Fatal(err)
			}
			plant(t, l, "2")
			plant(t, l, "3")
			for _, dir := range []string{".staging-1/out/boot", ".staging-2"} {
				if err := os.MkdirAll(filepath.Join(l.Dir, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(l.Dir, "README"), nil, 0o644); err != nil { // not ours
				t.Fatal(err)
			}
			for range 2 {
				err := l.Reconcile(ctx)
				if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				if got := ls(t, l.Dir); !slices.Equal(got, c.want) {
					t.Errorf("holds %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestReconcileTellsWhatIsMissing(t *testing.T) {
	l, rows := newLibrary(t)
	ctx := t.Context()
	whole := vm.Kernel{Name: "whole", Digest: plant(t, l, "1")}
	damaged := vm.Kernel{Name: "damaged", Digest: plant(t, l, "2"), Source: "apt:linux-image-x"}
	lost := vm.Kernel{Name: "lost", Digest: "sha256:" + strings.Repeat("3", 64)}
	absurd := vm.Kernel{Name: "absurd", Digest: "sha256:../.."}
	for _, k := range []vm.Kernel{whole, damaged, lost, absurd} {
		if err := rows.PutKernel(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(l.Dir, damaged.Digest[7:], fileModules)); err != nil {
		t.Fatal(err)
	}
	err := l.Reconcile(ctx)
	if vm.CodeOf(err) != vm.CodeCorrupt {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"kernel damaged", "no modules.ext4", "kernel lost", "no vmlinux", "kernel absurd"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "whole") {
		t.Errorf("%q blames a whole kernel", err)
	}
}

func TestReconcileOfNothing(t *testing.T) {
	l, _ := newLibrary(t)
	if err := l.Reconcile(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.Dir); !os.IsNotExist(err) {
		t.Error("made a directory for nothing")
	}
}
