package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/store"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// Where things lie in the lab.
const (
	RepoDir        = "/srv/banger"                            // what tests need of the source tree, and bin/
	RootDir        = "/var/lib/banger"                        // root's own BANGER_ROOT, with the default kernel and image
	SeedDir        = "/srv/banger/seed"                       // a root of the same that no daemon serves: tests copy it
	FirecrackerDir = "/opt/firecracker-" + FirecrackerVersion // firecracker, jailer
)

// Equip puts the built product, Firecracker and a root with the default kernel, the default image and the one with tools
// into the lab, once: then `banger vm run` works there. They survive a hard reset.
func (l *Lab) Equip(ctx context.Context) error {
	if l.equipped {
		return nil
	}
	begin := time.Now()
	firecracker, err := Firecracker(ctx, l.Cache)
	if err != nil {
		return err
	}
	stage := filepath.Join(l.Dir, "product")
	if err := l.stageRoot(ctx, filepath.Join(stage, RootDir)); err != nil {
		return fmt.Errorf("make a root for the lab: %w", err)
	}
	repo := filepath.Join(stage, RepoDir)
	links := map[string]string{
		filepath.Join(repo, "scripts/test-root"):     filepath.Join(l.Repo, "scripts/test-root"),
		filepath.Join(stage, FirecrackerDir):         firecracker,
		filepath.Join(repo, "go.mod"):                filepath.Join(l.Repo, "go.mod"), // by it a test finds the repository
		filepath.Join(repo, "bin/banger"):            filepath.Join(l.Repo, "bin/banger"),
		filepath.Join(repo, "bin/bangerd"):           filepath.Join(l.Repo, "bin/bangerd"),
		filepath.Join(repo, "internal/guestbin/bin"): filepath.Join(l.Repo, "internal/guestbin/bin"),
	}
	for link, to := range links {
		if err := symlink(to, link); err != nil {
			return err
		}
	}
	if err := l.send(ctx, stage, "/"); err != nil {
		return fmt.Errorf("send the product into the lab: %w", err)
	}
	if _, err := l.output(ctx, "sh", "-ec", `
chmod 0700 `+RootDir+`
mkdir -m 0700 `+SeedDir+`
cp -al `+RootDir+`/images `+RootDir+`/kernels `+SeedDir+`
cp `+RootDir+`/banger.db `+SeedDir+`
ln -sf `+RepoDir+`/bin/banger `+RepoDir+`/bin/bangerd `+FirecrackerDir+`/firecracker `+FirecrackerDir+`/jailer /usr/local/bin/
sync`); err != nil {
		return err
	}
	l.equipped = true
	l.Log("lab: product, root and Firecracker are in after %.1f s", time.Since(begin).Seconds())
	return os.RemoveAll(stage)
}

// stageRoot makes dir a root like the lab's own, but with those images only that no lab can build: it has no packages. The
// others are large.
func (l *Lab) stageRoot(ctx context.Context, dir string) (err error) {
	own, err := store.Open(ctx, filepath.Join(l.root(), "banger.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	kernel, err := own.KernelByName(ctx, vm.DefaultKernel)
	if err != nil {
		return err
	}
	to, err := store.Open(ctx, filepath.Join(dir, "banger.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	link := func(kind, digest string) error {
		of := filepath.Join(kind, strings.TrimPrefix(digest, "sha256:"))
		return symlink(filepath.Join(l.root(), of), filepath.Join(dir, of))
	}
	if err := errors.Join(to.PutKernel(ctx, kernel), link("kernels", kernel.Digest)); err != nil {
		return err
	}
	for _, name := range []string{vm.DefaultImage, testhost.ToolsImage, testhost.SystemdImage} {
		image, err := own.ImageByName(ctx, name)
		if err != nil {
			return err
		}
		if err := errors.Join(to.PutImage(ctx, image), link("images", image.Digest)); err != nil {
			return err
		}
	}
	return nil
}

// prove makes SeedDir's daemon prove KVM, which takes many seconds here: the verdict holds for this boot, and goes with
// the copies that tests make.
func (l *Lab) prove(ctx context.Context) error {
	_, err := l.output(ctx, "sh", "-ec", "export BANGER_ROOT="+SeedDir+"; banger vmm show firecracker; banger daemon stop")
	return err
}

func symlink(to, link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.Symlink(to, link)
}

// sendTime bounds one transfer: the channel carries some 15 MB a second, and the first one is 110 MB.
const sendTime = 5 * time.Minute

// send copies what is in a directory here into one in the lab. Links are followed. Holes stay holes, which
// banger vm cp fills: the 8 GiB of a root.ext4 are mostly holes. Directories that are there keep their mode.
func (l *Lab) send(ctx context.Context, local, remote string) (err error) {
	entries, err := os.ReadDir(local)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	args := []string{"--create", "--sparse", "--dereference", "--owner=0", "--group=0", "--use-compress-program=zstd -1 -T0", "--file=-", "--directory=" + local, "--"}
	for _, e := range entries {
		args = append(args, e.Name())
	}
	var packErrs, unpackErrs strings.Builder
	pack := exec.CommandContext(ctx, "tar", args...)
	pack.Stderr = &packErrs
	pack.WaitDelay = patience
	stream, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	unpack := l.command(ctx, where{stdin: stream}, "tar", "--extract", "--zstd", "--no-overwrite-dir", "--no-same-owner", "--file=-", "--directory="+remote)
	unpack.Stderr = &unpackErrs
	if err := pack.Start(); err != nil {
		return err
	}
	if err = unpack.Run(); err != nil {
		err = fmt.Errorf("tar in the lab: %w\n%s", errors.Join(err, context.Cause(ctx)), unpackErrs.String())
		cancel() // the other end would wait for its reader
	}
	// Status 1 says that a file's inode changed meanwhile: its links did, as roots come and go that share the image.
	if e := pack.Wait(); e != nil && pack.ProcessState.ExitCode() != 1 {
		err = errors.Join(err, fmt.Errorf("tar: %w\n%s", e, packErrs.String()))
	}
	return err
}
