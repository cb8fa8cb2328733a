package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/vm"
)

const stagingPrefix = ".staging-"

// Import makes source the kernel of that name, replacing what had the name (its VMs keep theirs). Sources:
//
//	FILE.deb              a Debian kernel package
//	FILE                  a kernel image (bzImage or ELF vmlinux) that needs no modules
//	installed[:RELEASE]   a kernel of this host, by default the running one
//	apt:PACKAGE           a package, or metapackage, of the host's apt; downloaded, not installed
//	"" (empty)            DefaultSource
//
// An empty name is made after the source. Callers who want the same at the same time share one import. Progress is stage "kernel". On error nothing is left:
// vm.CodeInvalid (bad name, or no kernel we can boot), vm.CodeNotFound, vm.CodeMissing (a program), vm.CodeNoSpace,
// vm.CodeUnavailable (download), vm.CodeCanceled.
func (l *Library) Import(ctx context.Context, name, source string, report vm.Report) (vm.Kernel, error) {
	if source == "" {
		source = DefaultSource
	}
	if name == "" {
		name = nameFor(source)
	}
	if err := l.names().CheckName(name); err != nil {
		return vm.Kernel{}, err
	}
	k, err := l.imports.Do(ctx, name+"\x00"+source, report, func(ctx context.Context, report vm.Report) (vm.Kernel, error) {
		end := report.Stage(vm.Event{Name: name, Text: source}, "kernel")
		k, err := l.fetch(ctx, name, source, func(text string) {
			report.Send(vm.Event{Kind: "note", Stage: "kernel", Name: name, Text: text})
		})
		end(err)
		return k, err
	})
	return k, l.explain(fmt.Sprintf("import kernel %s from %s", name, source), err)
}

// explain says what was being done, and gives the errors that a caller branches on their code.
func (l *Library) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isNoSpace(err):
		return vm.Errorf(vm.CodeNoSpace, "%s: %w", what, err).WithHint("free some space in %s: an import takes 400 MB, 1 GB for a distribution's full kernel", l.Dir)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return vm.Errorf(vm.CodeCanceled, "%s: %w", what, err)
	}
	return vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
}

// fetch stages a kernel, publishes it, and commits its row.
func (l *Library) fetch(ctx context.Context, name, source string, note func(string)) (vm.Kernel, error) {
	defer l.making.Begin()()
	if err := act.Do(ctx, "directory", func() error { return os.MkdirAll(l.Dir, 0o755) }); err != nil {
		return vm.Kernel{}, err
	}
	staging, err := stage(ctx, l.Dir)
	if err != nil {
		return vm.Kernel{}, err
	}
	defer func() { _ = unstage(ctx, staging) }() // or Reconcile does

	out := filepath.Join(staging, "out")
	if err := act.Do(ctx, "staging.directory", func() error { return os.Mkdir(out, 0o755) }); err != nil {
		return vm.Kernel{}, err
	}
	k := vm.Kernel{Name: name, Source: source, CreatedAt: time.Now().UTC()}
	if err := l.assemble(ctx, staging, out, &k, note); err != nil {
		return vm.Kernel{}, err
	}
	if err := ctx.Err(); err != nil {
		return vm.Kernel{}, err
	}
	release, err := l.uses.Hold(ctx, k.Digest) // else the files could be found there and be deleted before the row
	if err != nil {
		return vm.Kernel{}, err
	}
	defer release()
	if err := l.publish(ctx, staging, out, k.Digest); err != nil {
		return vm.Kernel{}, err
	}
	// From here on the directory waits for its row: a caller who leaves now must not make it a leftover.
	ctx = context.WithoutCancel(ctx)
	was, err := l.Records.KernelByName(ctx, name)
	if err == nil || vm.CodeOf(err) == vm.CodeNotFound {
		err = l.Records.PutKernel(ctx, k)
	}
	if err != nil {
		return vm.Kernel{}, err
	}
	if was.Digest != "" && was.Digest != k.Digest {
		_ = l.Sweep(ctx, was.Digest) // or Reconcile does
	}
	return k, nil
}

// stage makes a new staging directory.
func stage(ctx context.Context, dir string) (staging string, err error) {
	err = act.Do(ctx, "staging", func() (err error) {
		staging, err = os.MkdirTemp(dir, stagingPrefix)
		return err
	})
	return staging, err
}

func unstage(ctx context.Context, staging string) error {
	return act.Do(ctx, "staging.remove", func() error { return os.RemoveAll(staging) })
}

// assemble fills out with everything a kernel's directory holds, on the disk, and completes k.
func (l *Library) assemble(ctx context.Context, staging, out string, k *vm.Kernel, note func(string)) (err error) {
	image := filepath.Join(staging, "vmlinuz")
	t, err := newTree(ctx, filepath.Join(staging, "tree"))
	if err != nil {
		return err
	}
	defer t.close()
	k.Version, err = l.unpack(ctx, k.Source, image, t, note)
	vmlinux := filepath.Join(out, fileVmlinux)
	if err == nil {
		err = writeVmlinux(vmlinux, image)
	}
	if addErr := t.wait(); err == nil {
		err = addErr // else it is the same, or of less interest
	}
	if err != nil {
		return err
	}
	if t.release == "" { // a kernel image alone
		release, err := findRelease(vmlinux)
		if err != nil {
			return err
		}
		if err := t.setRelease(release); err != nil {
			return err
		}
	}
	k.Release = t.release
	note("packing the modules of " + k.Release)
	if err := depmod(ctx, t); err != nil {
		return err
	}
	if err := writeBoot(filepath.Join(out, dirBoot), t); err != nil {
		return err
	}
	if err := writeModulesDisk(ctx, filepath.Join(out, fileModules), t.modules()); err != nil {
		return err
	}
	sum, err := sumFile(vmlinux)
	if err != nil {
		return err
	}
	k.Digest = digest(k.Release, sum, t.sums)
	if k.Size, err = diskUsage(out); err != nil {
		return err
	}
	record, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	if err := act.Do(ctx, "staging.description", func() error { return file.WriteNew(filepath.Join(out, fileRecord), append(record, '\n')) }); err != nil {
		return err
	}
	return file.SyncDir(out)
}

// publish moves a whole kernel to its name. One of the same digest stays; one that is damaged is replaced.
func (l *Library) publish(ctx context.Context, staging, out, digest string) error {
	dst, err := l.path(digest)
	if err != nil {
		return err
	}
	if l.check(digest) == nil {
		return nil
	}
	err = act.Do(ctx, "kernel.remove", func() error { return os.Rename(dst, filepath.Join(staging, "damaged")) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if l.Unnamed != nil { // a crash before the row leaves what is known to be nobody's
		if err := l.Unnamed.Add(ctx, digest); err != nil {
			return err
		}
	}
	err = act.Do(ctx, "kernel", func() error { return os.Rename(out, dst) })
	if err != nil && l.check(digest) != nil { // unless another import was quicker
		return err
	}
	return file.SyncDir(l.Dir)
}

// findRelease takes the release out of the banner in a kernel ("Linux version RELEASE (…").
func findRelease(vmlinux string) (string, error) {
	b, err := os.ReadFile(vmlinux)
	if err != nil {
		return "", err
	}
	const banner = "Linux version "
	for {
		_, rest, ok := bytes.Cut(b, []byte(banner))
		if !ok {
			return "", vm.Errorf(vm.CodeInvalid, "vmlinux does not tell its release")
		}
		release, _, _ := strings.Cut(string(rest[:min(len(rest), 65)]), " ")
		if releasePattern.MatchString(release) {
			return release, nil
		}
		b = rest
	}
}
