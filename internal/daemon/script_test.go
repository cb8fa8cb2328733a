package daemon_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/api/client"
	"banger/internal/cli"
	"banger/internal/cli/launch"
	"banger/internal/paths"
	"banger/internal/testhost"
)

func TestMain(m *testing.M) {
	testscript.Main(testhost.Races(m), map[string]func(){
		"banger":  func() { os.Exit(cli.Main(os.Args[1:])) },
		"bangerd": func() { os.Exit(bangerd(os.Args[1:])) },
		"standin": func() { os.Exit(standIn(os.Args[1:])) },
		"code":    wantCode,
	})
}

// wantCode is "code N COMMAND ARG...": it fails unless the command exits with N. A panic is an exit status too.
func wantCode() {
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	_ = cmd.Run()
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != os.Args[1] {
		fmt.Fprintf(os.Stderr, "exit code %s, not %s\n", got, os.Args[1])
		os.Exit(1)
	}
}

// TestScripts runs the real CLI against the real daemon, as far as that goes without a guest.
func TestScripts(t *testing.T) {
	testhost.Need(t, testhost.Guest)
	runScripts(t, "testdata/script")
}

// TestScriptsWithQEMU does the same where the daemon must find QEMU.
func TestScriptsWithQEMU(t *testing.T) {
	testhost.Need(t, testhost.Guest, testhost.QEMU)
	runScripts(t, "testdata/qemu")
}

func runScripts(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			root := filepath.Join(e.WorkDir, "r")
			e.Setenv("BANGER_ROOT", root)
			e.Setenv(testhost.RaceEnv, os.Getenv(testhost.RaceEnv))
			ours, _, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator))
			e.Setenv("OURS", ours) // the directory of banger and bangerd alone
			e.Defer(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				c := client.New(paths.Under(root).Socket())
				_ = c.Shutdown(ctx) // most likely none runs any more
				c.Close()
				if err := launch.WaitGone(ctx, paths.Under(root)); err != nil {
					t.Errorf("the daemon does not end: %v", err)
				}
			})
			return nil
		},
	})
}
