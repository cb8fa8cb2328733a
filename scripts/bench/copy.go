package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"banger/internal/api/client"
	"banger/internal/paths"
)

// copySize is what one copy of the measurement carries, in bytes: seconds of a channel under emulation.
const copySize = 64 << 20

// copies compares `vm cp` with what the same channel brings where nothing is done with the bytes: out of the guest as the
// agent's own stream, read to nowhere, and through a command's output; into it through a command's input.
func (b bench) copies(ctx context.Context) (err error) {
	const name, rounds = "bench-copy", 5
	if _, err := b.banger.run(ctx, "vm", "run", "-d", "--name", name); err != nil {
		return err
	}
	defer func() { err = b.remove(ctx, name, err) }()
	dir, err := os.MkdirTemp("", "bb-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	here, back, there := filepath.Join(dir, "here"), filepath.Join(dir, "back"), name+":/srv/there"
	if err := random(here, copySize); err != nil {
		return err
	}
	if _, err := b.banger.run(ctx, "vm", "cp", here, there); err != nil {
		return err
	}
	c := client.New(paths.Under(b.banger.root).Socket())
	defer c.Close()
	var in, out, execIn, execOut, stream times
	for range rounds {
		for _, m := range []struct {
			into    *times
			measure func() error
		}{
			{&in, func() error { _, err := b.banger.run(ctx, "vm", "cp", here, there); return err }},
			{&execIn, func() error {
				return b.discard(ctx, here, "vm", "exec", "-i", name, "--", "sh", "-c", "cat > /dev/null")
			}},
			{&out, func() error { _, err := b.banger.run(ctx, "vm", "cp", there, back); return err }},
			{&execOut, func() error { return b.discard(ctx, os.DevNull, "vm", "exec", name, "--", "cat", "/srv/there") }},
			{&stream, func() error {
				r, err := c.GetFiles(ctx, name, "/srv/there")
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, r)
				return errors.Join(err, r.Close())
			}},
		} {
			begin := time.Now()
			if err := m.measure(); err != nil {
				return err
			}
			m.into.add(time.Since(begin))
		}
	}
	rate := func(t times) float64 { return copySize / 1e6 / t.median().Seconds() }
	fmt.Printf("into the guest: vm exec -i, thrown away %.1f MB/s\n", rate(execIn))
	fmt.Printf("banger vm cp FILE NAME:               %.1f MB/s\n", rate(in))
	fmt.Printf("  of the bare channel %.2f              (aim: at least 0.50)\n", rate(in)/rate(execIn))
	bare := max(rate(execOut), rate(stream))
	fmt.Printf("out of the guest: vm exec, thrown away %.1f MB/s; the agent's stream, thrown away %.1f MB/s\n", rate(execOut), rate(stream))
	fmt.Printf("banger vm cp NAME: FILE               %.1f MB/s\n", rate(out))
	fmt.Printf("  of the bare channel %.2f              (aim: at least 0.50)\n", rate(out)/bare)
	return nil
}

// discard runs a command with a file as its input and throws its output away.
func (b bench) discard(ctx context.Context, input string, args ...string) error {
	f, err := os.Open(input)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	cmd := b.banger.command(ctx, args...)
	cmd.Stdin = f
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, out)
	return errors.Join(err, cmd.Wait())
}

// random makes a file that nothing on its way can shorten.
func random(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(rand.Reader, int64(size)))
	return errors.Join(err, f.Close())
}
