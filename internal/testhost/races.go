package testhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// runner is *testing.M, or what stands for it.
type runner interface{ Run() int }

// Races wraps the run of a package whose tests start programs out of their own binary. Under the race detector each of
// these would wait a second before it ends, and one that nobody waits for, as a daemon, would tell of a race where
// nobody looks: here the run fails by it.
func Races(m runner) runner { return races{m} } //nolint:revive // handed on to who runs it

// RaceEnv is the environment variable that programs under the race detector must get, where a test sets theirs anew.
const RaceEnv = "GORACE"

type races struct{ tests runner }

func (r races) Run() (code int) {
	dir, err := os.MkdirTemp("", "races-")
	if err == nil {
		err = os.Setenv(RaceEnv, strings.TrimSpace(os.Getenv(RaceEnv)+" atexit_sleep_ms=0 log_path="+filepath.Join(dir, "race")))
	}
	if err == nil {
		code = r.tests.Run()
		err = raced(dir)
	}
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// raced is what programs have told of races.
func raced(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		return errors.Join(err, fmt.Errorf("a program that a test started has met a race:\n%s", text))
	})
}
