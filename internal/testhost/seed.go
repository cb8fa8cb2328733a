package testhost

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// SeedVar names, in the environment, a root that holds kernel and images already: it is copied instead of one that is
// built. It is for hosts that cannot build images, as the lab.
const SeedVar = "BANGER_TEST_SEED"

// ToolsImage is an image with what people reach their servers for: the other ends of programs that work over ssh. It is
// made of the default one's packages and ToolsPackages.
const (
	ToolsImage    = "tools"
	ToolsPackages = "git,openssh-client,python3,rsync,vim-tiny"
)

// SystemdImage is one whose init is systemd, which is PID 1 then. Every root that SeedRoot makes has it.
const SystemdImage = "systemd"

// SeedTools has roots that are made by SeedRoot from now on hold ToolsImage as well. The first call on a machine builds
// it. A root that SeedVar names has to hold it.
func SeedTools(t testing.TB) {
	t.Helper()
	if os.Getenv(SeedVar) != "" {
		return
	}
	Need(t, Mmdebstrap)
	build := exec.Command(filepath.Join(Repo(t), "scripts", "test-root"), "image", ToolsImage, ToolsPackages)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make the image %s: %v\n%s", ToolsImage, err, out)
	}
}

// SeedRoot makes a fresh BANGER_ROOT that holds the default kernel and image (hard links of ones that are kept between
// runs, or of those in SeedVar's root) and no VM, and returns it with the path of bin/banger. Its daemon is stopped and
// the root removed with the test; VMs are the test's own affair. The first call on a machine builds the image, which
// takes minutes.
func SeedRoot(t testing.TB) (root, banger string) {
	t.Helper()
	Need(t, Real, QEMU)
	if os.Getenv(SeedVar) == "" {
		Need(t, Mmdebstrap)
	}
	repo := Repo(t)
	banger = filepath.Join(repo, "bin", "banger")
	if _, err := os.Stat(banger); err != nil {
		t.Fatalf("%v: make build first", err)
	}
	root = Dir(t)
	seed := exec.Command(filepath.Join(repo, "scripts", "test-root"), "seed", root)
	if out, err := seed.CombinedOutput(); err != nil {
		t.Fatalf("seed the root: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		stop := exec.Command(banger, "daemon", "stop")
		stop.Env = append(os.Environ(), "BANGER_ROOT="+root)
		_ = stop.Run() // exits with 3 when none runs
	})
	return root, banger
}

// Repo is the top of this source tree.
func Repo(t testing.TB) string {
	t.Helper()
	dir, err := repo()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func repo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the test's directory")
		}
		dir = up
	}
}
