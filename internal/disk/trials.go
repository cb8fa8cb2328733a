package disk

import (
	"context"
	"errors"
	"os"
	"regexp"

	"banger/internal/act"
	"banger/internal/inventory"
)

// Trying is what is being done while a driver probes.
const Trying = "it is being tried which disk drivers work here"

// TrialFiles are the files that probes of a driver left that died with their daemon.
func TrialFiles(trials *inventory.Work, driver string, p inventory.Place) inventory.Kind {
	return inventory.Residue{
		Name: "probe's file", Doing: Trying, Work: trials, Dir: p.State,
		Find: func(context.Context) (paths []string, err error) {
			dirs, err := imageDirs(p)
			errs := []error{err}
			for _, dir := range append([]string{p.VMs}, dirs...) {
				found, err := Probes(driver, dir)
				errs = append(errs, err)
				for _, path := range found {
					if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
						paths = append(paths, path)
					}
				}
			}
			return paths, errors.Join(errs...)
		},
		Delete: func(ctx context.Context, path string) error {
			return act.Do(ctx, "probe.remove", func() error { return os.Remove(path) })
		},
	}
}

// try probes, and words an error by the directories alone: the names of a probe's own files are gone when people read them.
func try(ctx context.Context, d Driver, imageDir, vmDir string) error {
	err := d.Probe(ctx, imageDir, vmDir)
	if err == nil {
		return nil
	}
	return &trialError{err, trialName.ReplaceAllString(err.Error(), "")}
}

var trialName = regexp.MustCompile(`/\.probe-[^\s:",]+`)

type trialError struct {
	error
	text string
}

func (e *trialError) Error() string { return e.text }
func (e *trialError) Unwrap() error { return e.error }
