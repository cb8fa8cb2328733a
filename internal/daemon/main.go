// Package daemon wires bangerd: configuration, lock, log, database, drivers, engine, API, shutdown. It is the only place
// that names concrete drivers, and holds no logic of its own.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/host/fds"
	"banger/internal/host/lockfile"
	"banger/internal/host/proc"
	"banger/internal/paths"
	"banger/internal/version"
	"banger/internal/vm"
)

const usage = `bangerd is banger's daemon. The banger command starts it by itself.

Usage: bangerd [--version | --help]

It serves until SIGTERM, SIGINT or 'banger daemon stop'; VMs live on. BANGER_ROOT=DIR puts all of its state under DIR.
`

// Main runs the daemon and returns its exit code.
func Main(args []string) int { return mainWith(args, driversOf) }

// mainWith is Main with drivers of the caller's choice: tests have machines of their own.
func mainWith(args []string, of wiring) int {
	if len(args) > 0 {
		if args[0] == "--version" && len(args) == 1 {
			fmt.Fprintln(os.Stdout, "bangerd", version.String())
			return 0
		}
		fmt.Fprint(os.Stdout, usage)
		if args[0] == "--help" || args[0] == "-h" {
			return 0
		}
		return exitFailure
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ignore(syscall.SIGHUP, syscall.SIGPIPE) // the terminal it was started from may go
	ready := newReadyPipe()
	err := fds.CloseOnExec() // before anything is started: what started this daemon may have left it some
	if err == nil {
		err = act.Arm(os.Getenv)
	}
	if err == nil {
		err = run(act.In(ctx, "daemon-start"), ready, of)
	}
	if err != nil {
		ready.tell(api.Ready{Error: api.BodyOf(err)})
		fmt.Fprintln(os.Stderr, "bangerd:", err)
		if hint := vm.HintOf(err); hint != "" {
			fmt.Fprintln(os.Stderr, "  hint:", hint)
		}
		return exitFailure
	}
	return 0
}

// ignore drops these signals. signal.Ignore would have every VMM and every build inherit that, since what is ignored
// stays so over an exec; what is caught does not.
func ignore(signals ...os.Signal) {
	dropped := make(chan os.Signal, 1) // a full one drops as well: nobody reads it
	signal.Notify(dropped, signals...)
}

const exitFailure = 125 // as the CLI's, for whatever banger itself could not do

func run(ctx context.Context, ready *readyPipe, of wiring) error {
	p, err := paths.Default()
	if err != nil {
		return err
	}
	if err := p.CheckSockets(); err != nil {
		return err
	}
	c, err := config.Load(p.Config)
	if err != nil {
		return err
	}
	if err := p.Make(ctx); err != nil {
		return err
	}
	unlock, err := lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	awaitLaunches(ctx, p.DaemonLock())
	level, err := c.Level()
	if err != nil {
		return err
	}
	out := newLog(p.DaemonLog())
	defer out.close()
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level}))
	return serve(ctx, p, c, log, ready, of)
}

// lockWait bounds the wait for the daemon's lock: a CLI that waits for a daemon's end takes it for a moment.
const lockWait = 2 * time.Second

// lock makes sure that this is the only daemon of its root, for as long as it lives: the kernel drops the lock with it.
func lock(ctx context.Context, p paths.Paths) (unlock func(), err error) {
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err = lockfile.Take(wait, p.DaemonLock()) // the file stays: removing it would race with the next daemon
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, vm.Errorf(vm.CodeConflict, "another bangerd serves %s%s", p.Root, holder(p)).
			WithHint("stop it with 'banger daemon stop', or use another BANGER_ROOT")
	}
	if err != nil {
		return nil, err
	}
	err = act.Do(ctx, "lock.pid", func() error {
		return os.WriteFile(p.DaemonLock(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
	})
	if err != nil && !errors.Is(err, syscall.ENOSPC) { // the pid is for people; on a full disk there is more to do
		unlock()
		return nil, fmt.Errorf("write %s: %w", p.DaemonLock(), err)
	}
	return unlock, nil
}

// holder tells the pid of the daemon that holds the lock, for people; nothing when the file names one that has ended.
func holder(p paths.Paths) string {
	b, err := os.ReadFile(p.DaemonLock())
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return ""
	}
	if _, err := proc.Identify(pid); err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

// readyPipe is the inherited pipe named by api.ReadyEnv, to the CLI that started this daemon; none when the daemon was
// started by hand.
type readyPipe struct{ f *os.File }

func newReadyPipe() *readyPipe {
	fd, err := strconv.Atoi(os.Getenv(api.ReadyEnv))
	_ = os.Unsetenv(api.ReadyEnv)
	if err != nil || fd < 3 {
		return &readyPipe{}
	}
	return &readyPipe{os.NewFile(uintptr(fd), "ready")}
}

// tell writes the line once; later calls do nothing.
func (r *readyPipe) tell(line api.Ready) {
	if r.f == nil {
		return
	}
	_ = json.NewEncoder(r.f).Encode(line) // who waited may have gone
	_ = r.f.Close()
	r.f = nil
}

// joinLogged logs what a start-up repair could not do; it never keeps the daemon from serving.
func joinLogged(log *slog.Logger, what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Warn(what, "error", err)
	}
}
