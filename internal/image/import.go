package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"banger/internal/catalog"
	"banger/internal/compressed"
	"banger/internal/host/ext4"
	"banger/internal/host/file"
	"banger/internal/qcow2"
	"banger/internal/vm"
)

// ImportOptions say what to import.
type ImportOptions struct {
	Source string // path of a file: identify says which
	Title  string // what people are told it is; empty: its path
	Name   string // of the image; empty: after the file
	Force  bool   // take the name from another image; VMs keep that one
}

// Import makes an image from a file, whose content says what it is. Callers who want the same at the same time share one import.
//
// report gets the stage "image", and a note for each part of the work. Errors, all before anything is made where that can be:
// vm.CodeInvalid (name, content), CodeNotFound (the file), CodeExists (the name), CodeMissing, CodeNoSpace, CodeCanceled.
func (l *Library) Import(ctx context.Context, o ImportOptions, report vm.Report) (img vm.Image, err error) {
	if o.Name == "" {
		o.Name = catalog.NameOf(nameFor(o.Source))
	}
	if err := l.names().CheckName(o.Name); err != nil {
		return vm.Image{}, err
	}
	title := cmp.Or(o.Title, o.Source)
	what := fmt.Sprintf("import image %s from %s", o.Name, title)
	k, err := l.mayImport(ctx, o)
	if err != nil {
		return vm.Image{}, vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
	}
	end := report.Stage(vm.Event{Name: o.Name, Text: title}, "image")
	defer func() { end(err) }()
	return l.fly(ctx, o.Name, what, report, func(ctx context.Context, note func(vm.Event)) (vm.Image, error) {
		step := func(text string) { note(vm.Event{Kind: "note", Name: o.Name, Stage: "image", Text: text}) }
		img, err := l.make(ctx, vm.Image{Name: o.Name, Source: describe(k, title)}, l.recorder(o.Force), func(ctx context.Context, s *staged) error {
			step("reading " + title)
			switch k {
			case kindTar:
				return l.fromTree(ctx, s, step, func(tree string) (string, error) { return l.extract(ctx, o.Source, tree) })
			case kindExt4:
				return l.fromDisk(ctx, s, step, false, func(root string) error { return file.Copy(ctx, root, o.Source) })
			default:
				return l.fromDisk(ctx, s, step, false, func(root string) error { return convert(ctx, o.Source, root) })
			}
		})
		if err != nil {
			return vm.Image{}, explain(what, l.cfg.Dir, err)
		}
		return img, nil
	})
}

// mayImport refuses what can be refused before anything is made.
func (l *Library) mayImport(ctx context.Context, o ImportOptions) (kind, error) {
	if err := l.free(ctx, o.Name, o.Force); err != nil {
		return "", err
	}
	k, err := identify(o.Source)
	if err != nil {
		return "", err
	}
	return k, l.tools.ready(k)
}

// ready refuses a host that lacks a program which it takes to import something (vm.CodeMissing).
func ready(k kind) error {
	if k == kindTar {
		_, err := ext4.Program()
		return err
	}
	return ext4.Tools()
}

// free refuses a name that an image has, unless it may be taken (vm.CodeExists).
func (l *Library) free(ctx context.Context, name string, force bool) error {
	if force {
		return nil
	}
	switch _, err := l.cfg.Records.ImageByName(ctx, name); {
	case err == nil:
		return taken(name)
	case vm.CodeOf(err) != vm.CodeNotFound:
		return err
	}
	return nil
}

func taken(name string) error {
	return vm.Errorf(vm.CodeExists, "an image named %s exists", name).WithHint("give it another name, or take this one with --force: VMs of the other keep it")
}

// recorder is how an image gets its name in the end: somebody may have taken it since it was free.
func (l *Library) recorder(force bool) func(context.Context, vm.Image) error {
	if force {
		return l.cfg.Records.PutImage
	}
	return func(ctx context.Context, img vm.Image) error {
		err := l.cfg.Records.AddImage(ctx, img)
		if vm.CodeOf(err) == vm.CodeExists {
			return taken(img.Name)
		}
		return err
	}
}

// extract unpacks a tar, compressed or not, and returns the digest of what was in it.
func (l *Library) extract(ctx context.Context, source, tree string) (string, error) {
	f, err := os.Open(source)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	in, head := io.Reader(f), make([]byte, 4096)
	if n, _ := f.ReadAt(head, 0); !isTar(head[:n]) {
		d, err := compressed.NewReader(f)
		if err != nil {
			return "", kindError(err)
		}
		defer func() { _ = d.Close() }()
		in = d
	}
	hash := sha256.New()
	through := io.TeeReader(in, hash)
	err = l.tools.unpack(ctx, through, tree)
	if err == nil {
		_, err = io.Copy(io.Discard, through) // tar stops at its end mark; the digest covers the padding as well
	}
	if err != nil {
		var onHost *fs.PathError
		if ctx.Err() != nil || file.NoSpace(err) || errors.As(err, &onHost) {
			return "", err
		}
		return "", kindError(err)
	}
	entries, err := os.ReadDir(tree)
	if err != nil {
		return "", err
	}
	var tops []string
	for _, e := range entries {
		tops = append(tops, e.Name())
	}
	return fmt.Sprintf("%s%x", digestPrefix, hash.Sum(nil)), checkTops(tops)
}

// convert writes a qcow2 disk to the file root, which is empty.
func convert(ctx context.Context, source, root string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	i, err := qcow2.Open(f)
	if err == nil && i.Backing != "" { // it has changed since it was identified
		err = vm.Errorf(vm.CodeInvalid, "it stands on another file, %s", i.Backing)
	}
	if err != nil {
		return kindError(err)
	}
	out, err := os.OpenFile(root, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = out.Truncate(i.Size)
	if err == nil {
		err = i.CopyTo(ctx, out)
	}
	return errors.Join(err, out.Close())
}
