package binary

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/host/file"
	"banger/internal/vm"
)

const stagingPrefix = ".staging-"

// Install gets a VMM's programs and keeps them by their version. What is there already, unharmed, is not got again. Callers
// who want the same at the same time share one making of it. Progress is stage "vmm". On error nothing is left:
// vm.CodeInvalid (the request, or programs that are not what they should be), vm.CodeNotFound, vm.CodeMissing (they do not
// run here), vm.CodeNoSpace, vm.CodeUnavailable (download), vm.CodeCanceled.
func (l *Library) Install(ctx context.Context, name string, r api.InstallRequest, report vm.Report) (api.VMM, error) {
	if err := known(name); err != nil {
		return api.VMM{}, err
	}
	r, err := l.normal(r)
	if err != nil {
		return api.VMM{}, err
	}
	what := strings.TrimSuffix(name+" "+r.Version, " ")
	from := r.From
	if from == "" {
		from = l.Release(r.Version)
	}
	shown := from
	if strings.Contains(from, "://") {
		u, err := parseURL(from)
		if err != nil {
			return api.VMM{}, explain("install "+what, err)
		}
		shown = public(u)
	} else if !filepath.IsAbs(from) {
		return api.VMM{}, vm.Errorf(vm.CodeInvalid, "install %s: %s is neither a URL nor an absolute path", what, from)
	}
	key := strings.Join(append([]string{r.Version, r.From}, r.SHA256...), "\x00")
	v, err := l.installs.Do(ctx, key, report, func(ctx context.Context, report vm.Report) (api.VMM, error) {
		if v, ok := l.there(r); ok {
			return v, nil
		}
		end := report.Stage(vm.Event{Name: name, Text: shown}, "vmm")
		v, err := l.fetch(ctx, r, from, shown, func(text string) {
			report.Send(vm.Event{Kind: "note", Stage: "vmm", Name: name, Text: text})
		})
		end(err)
		return v, err
	})
	if err != nil {
		if !strings.Contains(err.Error(), shown) {
			what += " from " + shown
		}
		return api.VMM{}, explain("install "+what, err)
	}
	v.InUse = l.inUse(v.Path)
	return v, nil
}

// normal checks a request and writes it in one way.
func (l *Library) normal(r api.InstallRequest) (api.InstallRequest, error) {
	r.Version = strings.TrimPrefix(r.Version, "v")
	if r.Version == "" && r.From == "" {
		r.Version = l.Programs.Tested
	}
	if r.Version != "" && !versionPattern.MatchString(r.Version) {
		return r, vm.Errorf(vm.CodeInvalid, "%q is not a version", r.Version).WithHint("a version is written as %s", l.Programs.Tested)
	}
	if r.Version != "" {
		if err := l.Programs.Supports(r.Version); err != nil {
			return r, vm.Errorf(vm.CodeInvalid, "install %s: %w", Name, err).WithHint("banger is tested with %s", l.Programs.Tested)
		}
	}
	given := []string{}
	for _, sum := range r.SHA256 {
		sum = strings.ToLower(strings.TrimPrefix(sum, "sha256:"))
		if !sumPattern.MatchString(sum) {
			return r, vm.Errorf(vm.CodeInvalid, "%q is not a SHA-256 digest", sum).WithHint("one has 64 hex digits")
		}
		given = append(given, sum)
	}
	slices.Sort(given)
	r.SHA256 = given
	return r, nil
}

// there answers a request for a version by what is installed of it, unless that is damaged or the request says what it must
// be made from.
func (l *Library) there(r api.InstallRequest) (api.VMM, bool) {
	if r.From != "" || len(r.SHA256) > 0 {
		return api.VMM{}, false
	}
	v := l.installed(r.Version)
	return v, v.Error == ""
}

func (l *Library) inUse(path string) bool {
	used, _, err := l.Locate()
	return err == nil && used == path
}

// fetch stages the programs, checks them and publishes them.
func (l *Library) fetch(ctx context.Context, r api.InstallRequest, from, shown string, note func(string)) (api.VMM, error) {
	defer l.making.Begin()()
	if err := act.Do(ctx, "directory", func() error { return os.MkdirAll(l.Dir, 0o755) }); err != nil {
		return api.VMM{}, err
	}
	var staging string
	err := act.Do(ctx, "staging", func() (err error) {
		staging, err = os.MkdirTemp(l.Dir, stagingPrefix)
		return err
	})
	if err != nil {
		return api.VMM{}, err
	}
	defer func() { // or Reconcile does
		_ = act.Do(ctx, "staging.remove", func() error { return os.RemoveAll(staging) })
	}()
	out := filepath.Join(staging, "out")
	if err := act.Do(ctx, "staging.directory", func() error { return os.Mkdir(out, 0o755) }); err != nil {
		return api.VMM{}, err
	}
	p, err := l.obtain(ctx, from, staging, note)
	if err != nil {
		return api.VMM{}, err
	}
	note("checking " + p.name)
	g, err := unpack(ctx, p.path, p.name, out)
	if err != nil {
		return api.VMM{}, err
	}
	rec := record{Version: r.Version, Digest: "sha256:" + g.vmm.sum, JailerDigest: "sha256:" + g.jailer.sum, Source: shown, InstalledAt: time.Now().UTC()}
	if rec.Checked, err = l.check(g, p, r.SHA256, r.Version); err != nil {
		return api.VMM{}, err
	}
	if rec.Version, err = l.versionIn(ctx, out, g, r.Version); err != nil {
		return api.VMM{}, err
	}
	// Which version it is may have been learnt only now: it must be none that we know other programs of.
	if rec.Checked, err = l.check(g, p, r.SHA256, rec.Version); err != nil {
		return api.VMM{}, err
	}
	if err := act.Do(ctx, "staging.description", func() error { return writeRecord(filepath.Join(out, fileRecord), rec) }); err != nil {
		return api.VMM{}, err
	}
	if err := ctx.Err(); err != nil {
		return api.VMM{}, err
	}
	if err := l.publish(ctx, staging, out, rec); err != nil {
		return api.VMM{}, err
	}
	return l.installed(rec.Version), nil
}

func writeRecord(path string, r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(file.WriteNew(path, append(b, '\n')), file.SyncDir(filepath.Dir(path)))
}

// versionIn has the programs say which version they are: both the same, the one that is wanted, and one that is of use.
func (l *Library) versionIn(ctx context.Context, out string, g goods, want string) (string, error) {
	versions := map[string]string{}
	for _, of := range []struct{ program, says, name string }{{progVMM, saysVMM, g.vmm.name}, {progJailer, saysJailer, g.jailer.name}} {
		file := filepath.Join(out, of.program)
		says, version, err := l.run(ctx, file)
		if err != nil {
			return "", err
		}
		if says != of.says {
			return "", vm.Errorf(vm.CodeInvalid, "%s says that it is %s, not %s", of.name, says, of.says)
		}
		versions[of.program] = version
	}
	version := versions[progVMM]
	switch {
	case versions[progJailer] != version:
		return "", vm.Errorf(vm.CodeInvalid, "%s is version %s, its jailer %s", g.vmm.name, version, versions[progJailer])
	case want != "" && version != want:
		return "", vm.Errorf(vm.CodeInvalid, "%s is version %s, not %s", g.vmm.name, version, want)
	case !versionPattern.MatchString(version):
		return "", vm.Errorf(vm.CodeInvalid, "%s says %q, which is no version", g.vmm.name, version)
	}
	if err := l.Programs.Supports(version); err != nil {
		return "", vm.Errorf(vm.CodeInvalid, "%s: %w", g.vmm.name, err).WithHint("banger is tested with %s", l.Programs.Tested)
	}
	return version, nil
}

// run asks a program for its version. What this daemon starts elsewhere at this moment may hold the new file open for
// writing until its own exec, and the kernel executes no such file.
func (l *Library) run(ctx context.Context, program string) (says, version string, err error) {
	for range 50 {
		says, version, err = l.Programs.Version(ctx, program)
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return says, version, err
}

// publish moves a whole version to its name. The same programs stay as they are; others, or damaged ones, are replaced: a
// VM that runs keeps what it has open.
func (l *Library) publish(ctx context.Context, staging, out string, r record) error {
	dst := l.versionDir(r.Version)
	if v := l.installed(r.Version); v.Error == "" && v.Digest == r.Digest && v.JailerDigest == r.JailerDigest {
		return nil
	}
	if err := act.Do(ctx, "program.directory", func() error { return os.MkdirAll(filepath.Dir(dst), 0o755) }); err != nil {
		return err
	}
	err := act.Do(ctx, "program.remove", func() error { return os.Rename(dst, filepath.Join(staging, "replaced")) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = act.Do(ctx, "program", func() error { return os.Rename(out, dst) })
	if err != nil {
		if v := l.installed(r.Version); v.Error != "" || v.Digest != r.Digest { // unless another install was quicker
			return err
		}
	}
	return errors.Join(file.SyncDir(filepath.Dir(dst)), file.SyncDir(l.Dir))
}
