package image

import (
	"context"

	"banger/internal/vm"
)

// AdoptOptions say what becomes of a disk.
type AdoptOptions struct {
	What   string // is being done, for errors: "commit VM web"
	Name   string // of the image
	Source string // how it was made, for people
	Env    []string
	Force  bool // take the name from another image; VMs keep that one
}

// Adopt makes an image of a machine's root disk, which fill writes to the file root, empty as yet; what makes a machine itself is
// taken out of it. Errors: vm.CodeInvalid (name, or what is on the disk), CodeExists (the name), CodeMissing, CodeNoSpace,
// CodeCanceled, and those of fill.
func (l *Library) Adopt(ctx context.Context, o AdoptOptions, fill func(ctx context.Context, root string) error, report vm.Report) (img vm.Image, err error) {
	if err := l.mayAdopt(ctx, o); err != nil {
		return vm.Image{}, vm.Errorf(vm.CodeOf(err), "%s: %w", o.What, err).WithHint("%s", vm.HintOf(err))
	}
	end := report.Stage(vm.Event{Name: o.Name}, "image")
	defer func() { end(err) }()
	return l.fly(ctx, o.Name, o.What, report, func(ctx context.Context, note func(vm.Event)) (vm.Image, error) {
		step := func(text string) { note(vm.Event{Kind: "note", Name: o.Name, Stage: "image", Text: text}) }
		img, err := l.make(ctx, vm.Image{Name: o.Name, Source: o.Source, Env: o.Env}, l.recorder(o.Force), func(ctx context.Context, s *staged) error {
			step("reading the system disk")
			return l.fromDisk(ctx, s, step, true, func(root string) error { return fill(ctx, root) })
		})
		if err != nil {
			return vm.Image{}, explain(o.What, l.cfg.Dir, err)
		}
		return img, nil
	})
}

// mayAdopt refuses what can be refused before anything is made.
func (l *Library) mayAdopt(ctx context.Context, o AdoptOptions) error {
	if err := l.names().CheckName(o.Name); err != nil {
		return err
	}
	if err := l.free(ctx, o.Name, o.Force); err != nil {
		return err
	}
	return l.tools.ready(kindExt4)
}
