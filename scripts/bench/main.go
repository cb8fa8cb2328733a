// Command bench measures banger against what the guest alone needs, on this host and in one run: the two sides of each
// comparison take turns, since absolute times wander by a factor of two on a busy machine.
//
//	bench -root DIR [-n RUNS] [-firecracker]
//	bench -rows N
//
// With -firecracker it compares cold starts on Firecracker only, with a bare one; make bench-lab runs that in the lab.
//
// With -rows N it measures lists, start and memory of a daemon with N VMs at rest only; it needs no root.
//
// DIR is a BANGER_ROOT with a kernel and an image (scripts/test-root seed DIR). scripts/bench/run does all of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	root := flag.String("root", "", "BANGER_ROOT with a kernel and an image")
	program := flag.String("banger", "bin/banger", "the program to measure")
	n := flag.Int("n", 10, "cold starts of each kind")
	onFirecracker := flag.Bool("firecracker", false, "measure cold starts on Firecracker, and nothing else")
	vms := flag.Int("vms", 1000, "stopped VMs to list")
	rows := flag.Int("rows", 0, "measure a daemon with that many VMs at rest, in a root of its own, and nothing else")
	flag.Parse()
	if *root == "" && *rows == 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	path, err := filepath.Abs(*program)
	if err == nil {
		b := bench{banger: cli{path: path, root: *root}, runs: *n, vms: *vms}
		switch {
		case *rows > 0:
			err = b.manyRows(ctx, *rows)
		case *onFirecracker:
			err = b.firecracker(ctx)
		default:
			err = b.all(ctx)
		}
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	banger cli
	runs   int
	vms    int
}

// all runs every measurement, the quick ones first, and prints a line of figures for each.
func (b bench) all(ctx context.Context) error {
	for _, measure := range []func(context.Context) error{b.version, b.exec, b.copies, b.coldStart, b.list} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// version is the start of the CLI itself.
func (b bench) version(ctx context.Context) error {
	var t times
	for range 50 {
		d, err := b.banger.run(ctx, "version")
		if err != nil {
			return err
		}
		t.add(d)
	}
	fmt.Printf("banger version                        %s   (aim: median at most 10 ms)\n", t)
	return nil
}

// exec is what banger adds to the time in which the guest itself spawns and reaps true.
func (b bench) exec(ctx context.Context) (err error) {
	const name, rounds, spawns = "bench-exec", 20, 25
	if _, err := b.banger.run(ctx, "vm", "run", "-d", "--name", name); err != nil {
		return err
	}
	defer func() { err = b.remove(ctx, name, err) }()
	if _, err := b.banger.run(ctx, "vm", "exec", name, "--", "true"); err != nil { // the first one reads true from the disk
		return err
	}
	var own, whole times
	for range rounds {
		d, err := b.spawnInGuest(ctx, name, spawns)
		if err != nil {
			return err
		}
		own.add(d)
		for range 5 {
			d, err := b.banger.run(ctx, "vm", "exec", name, "--", "true")
			if err != nil {
				return err
			}
			whole.add(d)
		}
	}
	fmt.Printf("guest spawns and reaps true           %s\n", own)
	fmt.Printf("banger vm exec NAME -- true           %s\n", whole)
	fmt.Printf("  banger adds %.1f ms to the median     (aim: at most 8 ms)\n", ms(whole.median()-own.median()))
	return nil
}

// coldStart compares `banger vm run --rm` with a bare QEMU that is given the same command line.
func (b bench) coldStart(ctx context.Context) error {
	bare, err := b.bareMachine(ctx)
	if err != nil {
		return err
	}
	defer bare.remove()
	return b.compare(ctx, "bare QEMU", bare.boot)
}

// compare has a bare machine and banger start in turns, each to the first output of a command.
func (b bench) compare(ctx context.Context, what string, boot func(context.Context) (time.Duration, error), flags ...string) error {
	command := append(append([]string{"vm", "run", "--rm"}, flags...), "--", "echo", "up")
	var bare, whole times
	for range b.runs {
		rest(ctx)
		if err := bare.measure(ctx, boot); err != nil {
			return err
		}
		rest(ctx)
		err := whole.measure(ctx, func(ctx context.Context) (time.Duration, error) { return b.banger.firstOutput(ctx, command...) })
		if err != nil {
			return err
		}
	}
	fmt.Printf("%-38s%s\n", what+" to first output", bare)
	fmt.Printf("%-38s%s\n", "banger vm run --rm to first output", whole)
	fmt.Printf("  ratio of medians %.3f                 (aim: at most 1.15)\n", float64(whole.median())/float64(bare.median()))
	return nil
}

// rest waits until udev has looked at all devices that came and went with the machine before: on a slow host that takes it
// half a second, and the next one would pay for it.
func rest(ctx context.Context) {
	if udevadm, err := exec.LookPath("udevadm"); err == nil {
		_ = exec.CommandContext(ctx, udevadm, "settle").Run() // none runs in a container
	}
}

// list is `vm list` with many stopped VMs.
func (b bench) list(ctx context.Context) error {
	if err := b.createStopped(ctx, b.vms); err != nil {
		return err
	}
	var t times
	for range 20 {
		d, err := b.banger.run(ctx, "vm", "list")
		if err != nil {
			return err
		}
		t.add(d)
	}
	fmt.Printf("banger vm list, %4d stopped VMs       %s   (aim: median at most 30 ms)\n", b.vms, t)
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
