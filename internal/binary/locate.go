package binary

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/api"
	"banger/internal/vm"
)

// Locate tells the driver what to run: absolute paths, or names to be found in PATH. In this order: what is configured,
// the newest installed version that the driver supports, what PATH has. The jailer comes from where the program does,
// unless another is configured. vm.CodeMissing when there is none.
func (l *Library) Locate() (program, jailer string, err error) {
	program, jailer = progVMM, progJailer
	switch newest, ok, damaged := l.newest(); {
	case l.Binary != "":
		program = l.Binary
		if beside := filepath.Join(filepath.Dir(program), progJailer); filepath.IsAbs(program) && isFile(beside) {
			jailer = beside
		}
	case ok:
		program, jailer = filepath.Join(l.versionDir(newest), progVMM), filepath.Join(l.versionDir(newest), progJailer)
	default:
		if _, err := l.Programs.Resolve(progVMM); err != nil && damaged != nil {
			return "", "", vm.Errorf(vm.CodeMissing, "use what banger has installed: %w", damaged).
				WithHint("banger vmm install %s gets it anew", Name)
		} else if err != nil {
			return "", "", vm.Errorf(vm.CodeMissing, "%s is neither installed by banger nor in PATH", Name).
				WithHint("banger vmm install %s, or give its path in config.toml ([%s] binary)", Name, Name)
		}
	}
	if l.Jailer != "" {
		jailer = l.Jailer
	}
	return program, jailer, nil
}

// newest is the newest installed version that the driver supports, and that is what was installed: it is run as root. damaged
// says what is wrong with a newer one.
func (l *Library) newest() (version string, ok bool, damaged error) {
	all, err := l.versions()
	if err != nil {
		return "", false, err
	}
	for _, v := range all {
		if l.Programs.Supports(v) != nil {
			continue
		}
		r, err := l.read(v)
		if err == nil {
			err = l.unchanged(r)
		}
		if err == nil {
			return v, true, damaged
		}
		if damaged == nil {
			damaged = err
		}
	}
	return "", false, damaged
}

// unchanged says which program of a version is another than was installed.
func (l *Library) unchanged(r record) error {
	for _, of := range []struct{ program, digest string }{{progVMM, r.Digest}, {progJailer, r.JailerDigest}} {
		path := filepath.Join(l.versionDir(r.Version), of.program)
		digest, err := l.digests.of(path)
		if err != nil {
			return err
		}
		if digest != of.digest {
			return fmt.Errorf("%s was changed since it was installed: it had %s", path, of.digest)
		}
	}
	return nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// List returns the programs there are, in the order in which they are preferred, never nil. What cannot be used is among
// them, with its reason.
func (l *Library) List(ctx context.Context) ([]api.VMM, error) {
	all := []api.VMM{}
	if l.Binary != "" {
		all = append(all, l.found(ctx, l.Binary, api.OriginConfig))
	}
	versions, err := l.versions()
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		all = append(all, l.installed(v))
	}
	if path, err := l.Programs.Resolve(progVMM); err == nil {
		all = append(all, l.found(ctx, path, api.OriginPath))
	}
	used, jailer, err := l.Locate()
	if err != nil {
		return all, ctx.Err()
	}
	if path, err := l.Programs.Resolve(used); err == nil {
		used = path
	}
	for i := range all {
		if path, err := l.Programs.Resolve(all[i].Path); err == nil && path == used || all[i].Path == used {
			all[i].InUse = true
			l.setJailer(&all[i], jailer)
			break
		}
	}
	return all, ctx.Err()
}

// installed describes a version that lies in the library.
func (l *Library) installed(version string) api.VMM {
	dir := l.versionDir(version)
	v := api.VMM{Name: Name, Version: version, Origin: api.OriginInstalled, Path: filepath.Join(dir, progVMM), Jailer: filepath.Join(dir, progJailer)}
	r, err := l.read(version)
	v.Source, v.Checked, v.InstalledAt = r.Source, r.Checked, r.InstalledAt
	if err == nil {
		v.Digest, err = digestOf(v.Path)
	}
	if err == nil {
		v.JailerDigest, err = digestOf(v.Jailer)
	}
	if err == nil {
		err = l.Programs.Supports(version)
	}
	switch {
	case err != nil:
		v.Error = err.Error()
	case v.Digest != r.Digest:
		v.Error = "the program was changed since it was installed: it had " + r.Digest
	case v.JailerDigest != r.JailerDigest:
		v.Error = "its jailer was changed since it was installed: it had " + r.JailerDigest
	}
	return v
}

// found describes a program that somebody else has put there.
func (l *Library) found(ctx context.Context, name, origin string) api.VMM {
	v := api.VMM{Name: Name, Origin: origin, Path: name}
	path, err := l.Programs.Resolve(name)
	if err == nil {
		v.Path = path
		v.Digest, err = digestOf(path)
	}
	var says string
	if err == nil {
		says, v.Version, err = l.Programs.Version(ctx, path)
	}
	if err == nil && says != saysVMM {
		err = fmt.Errorf("it says that it is %s", says)
	}
	if err == nil {
		err = l.Programs.Supports(v.Version)
	}
	if err != nil {
		v.Error = err.Error()
	}
	return v
}

// setJailer completes the program that is in use by the jailer that is. One that is not there is the driver's to tell of:
// it may need none.
func (l *Library) setJailer(v *api.VMM, jailer string) {
	path, err := l.Programs.Resolve(jailer)
	if err != nil || path == v.Jailer {
		return
	}
	v.Jailer = path
	v.JailerDigest, _ = digestOf(path)
}

// Show returns the program of that name that is in use, and whether VMs can be run with it. vm.CodeNotFound when the name
// is of no VMM that is kept here.
func (l *Library) Show(ctx context.Context, name string) (api.VMMView, error) {
	if err := known(name); err != nil {
		return api.VMMView{}, err
	}
	view := api.VMMView{VMM: api.VMM{Name: name}, Supported: l.Programs.Supported, Tested: l.Programs.Tested}
	all, err := l.List(ctx)
	if err != nil {
		return view, err
	}
	for _, v := range all {
		if v.InUse {
			view.VMM = v
		}
	}
	p := l.Programs.Probe(ctx)
	view.Usable, view.Accel, view.Why, view.Hint = p.Usable, p.Accel, p.Why, p.Hint
	if view.Version == "" {
		view.Version = p.Version
	}
	return view, ctx.Err()
}
