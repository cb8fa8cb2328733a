package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/api/client"
	"banger/internal/cli/launch"
	"banger/internal/paths"
	"banger/internal/testhost"
)

// soon bounds every wait of a test for what should come at once: a pass costs nothing of it.
const soon = 60 * time.Second

func TestMain(m *testing.M) {
	commands := map[string]func(){
		"banger":  func() { os.Exit(Main(os.Args[1:])) },
		"bangerd": func() { os.Exit(fakeDaemon()) },
		"ssh":     fakeSSH,
		"code":    wantCode,
		"keys":    wantKeys,
	}
	if commands[filepath.Base(os.Args[0])] == nil {
		unignore()
		testhost.Together()
	}
	testscript.Main(testhost.Races(m), commands)
}

// unignore lets the commands of tests begin with all signals as usual. A signal that nohup, or a shell's "&", has set to
// be ignored is handed down, and a shell cannot trap it; one that is caught is not. Caught here, it is as good as ignored.
func unignore() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// wantKeys is "keys KEY...": it fails unless stdin is one JSON object, or an array of them, at least one, and each has
// all the keys.
func wantKeys() {
	if err := checkKeys(os.Stdin, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func checkKeys(r io.Reader, keys []string) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	objects := make([]map[string]any, 1)
	if bytes.HasPrefix(b, []byte("[")) {
		err = json.Unmarshal(b, &objects)
	} else {
		err = json.Unmarshal(b, &objects[0])
	}
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return errors.New("the array is empty")
	}
	for _, o := range objects {
		for _, key := range keys {
			if _, ok := o[key]; !ok {
				return fmt.Errorf("no %q in %v", key, o)
			}
		}
	}
	return nil
}

// fakeSSH prints its command line, a word a line.
func fakeSSH() {
	for _, arg := range os.Args {
		fmt.Println(arg)
	}
}

// wantCode is "code N COMMAND ARG...": it fails unless the command exits with N.
func wantCode() {
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	_ = cmd.Run()
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != os.Args[1] {
		fmt.Fprintf(os.Stderr, "exit code %s, not %s\n", got, os.Args[1])
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			root := filepath.Join(e.WorkDir, "r")
			e.Setenv("BANGER_ROOT", root)
			e.Setenv(testhost.RaceEnv, os.Getenv(testhost.RaceEnv))
			e.Defer(func() { stopDaemon(t, root) })
			return nil
		},
	})
}

// stopDaemon ends the daemon of a test and fails the test when it does not go.
func stopDaemon(t *testing.T, root string) {
	p := paths.Under(root)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	c := client.New(p.Socket())
	_ = c.Shutdown(ctx) // most likely none is left to stop
	c.Close()
	if err := launch.WaitGone(ctx, p); err != nil {
		t.Errorf("the daemon of %s does not end: %v", root, err)
	}
}
