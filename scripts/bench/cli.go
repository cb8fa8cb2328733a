package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/paths"
)

// cli is the program under measurement with its root.
type cli struct{ path, root string }

func (c cli) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Env = append(os.Environ(), "BANGER_ROOT="+c.root)
	return cmd
}

// run measures a whole command, from its start to its end. What it prints goes where no process of ours reads along, as it
// would not in a shell.
func (c cli) run(ctx context.Context, args ...string) (took time.Duration, err error) {
	errs, err := os.CreateTemp("", "bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, errs.Close(), os.Remove(errs.Name())) }()
	cmd := c.command(ctx, args...)
	cmd.Stderr = errs
	start := time.Now()
	err = cmd.Run()
	took = time.Since(start)
	if err != nil {
		said, _ := os.ReadFile(errs.Name())
		return 0, fmt.Errorf("banger %s: %w\n%s", strings.Join(args, " "), err, said)
	}
	return took, nil
}

func (c cli) output(ctx context.Context, args ...string) (string, error) {
	cmd := c.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("banger %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// firstOutput measures to the first byte on stdout, then waits for the end.
func (c cli) firstOutput(ctx context.Context, args ...string) (time.Duration, error) {
	cmd := c.command(ctx, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_, readErr := out.Read(make([]byte, 64))
	d := time.Since(start)
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		return 0, fmt.Errorf("banger %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return d, nil
}

// spawnInGuest is the guest's own time for one spawn of true, by its own clock: a shell loop, without any channel.
func (b bench) spawnInGuest(ctx context.Context, name string, n int) (time.Duration, error) {
	script := fmt.Sprintf(`a=$(date +%%s%%N); i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done; b=$(date +%%s%%N); echo $(((b-a)/%d))`, n, n)
	out, err := b.banger.output(ctx, "vm", "exec", name, "--", "sh", "-c", script)
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	return time.Duration(ns), err
}

// remove deletes a VM even when ctx was cancelled, and joins what went wrong.
func (b bench) remove(ctx context.Context, name string, err error) error {
	_, gone := b.banger.run(context.WithoutCancel(ctx), "vm", "delete", name)
	return errors.Join(err, gone)
}

// createStopped makes VMs by the API, a few at a time. They go with the root.
func (b bench) createStopped(ctx context.Context, n int) error {
	c := client.New(paths.Under(b.banger.root).Socket())
	defer c.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			_, err := c.Create(ctx, api.CreateRequest{Name: fmt.Sprintf("bench-%04d", i), NoWait: true}, nil)
			return err
		})
	}
	return g.Wait()
}
