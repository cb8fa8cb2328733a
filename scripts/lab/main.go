// Command lab brings up the test lab (internal/lab), with the product and Firecracker in it, and opens a shell there,
// or runs a command; then the lab is deleted:
//
//	lab [-put FILE:PATH] [COMMAND [ARG...]]
//
// With -put a file is copied in first. The exit status is the shell's or the command's, or 125.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/lab"
)

func main() {
	put := flag.String("put", "", "FILE:PATH: copy a file into the lab first")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGHUP)
	status, err := run(ctx, *put, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		status = 125
	}
	os.Exit(status)
}

func run(ctx context.Context, put string, argv []string) (status int, err error) {
	repo, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	starting, stop := signal.NotifyContext(ctx, unix.SIGINT)
	defer stop() // from then on Ctrl-C is the guest's
	l, err := lab.Start(starting, lab.Options{Repo: repo, Log: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Equip(starting); err != nil {
		return 0, err
	}
	if from, to, ok := strings.Cut(put, ":"); ok {
		if err := l.Put(starting, from, to); err != nil {
			return 0, err
		}
	}
	session := l.SSH(ctx, argv...)
	session.Stdin, session.Stdout, session.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = session.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}
