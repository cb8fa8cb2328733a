package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/host/file"
	"banger/internal/host/proc"
	"banger/internal/paths"
)

// machine is a QEMU without banger: the command line is the one banger uses for a VM of this root, with files of its
// own put in, so that kernel, initramfs, disks and devices are the same.
type machine struct {
	args  []string
	dir   string // its files, named as in a VM's directory and run directory
	disks string // pristine copies of the VM's disks
}

// model starts a VM to see how its machine is made. remove deletes it, and joins what went wrong.
func (b bench) model(ctx context.Context, flags ...string) (view api.VMView, remove func(error) error, err error) {
	const name = "bench-model"
	remove = func(err error) error { return b.remove(ctx, name, err) }
	if _, err := b.banger.run(ctx, append([]string{"vm", "run", "-d", "--name", name}, flags...)...); err != nil {
		return view, nil, remove(err)
	}
	out, err := b.banger.output(ctx, "vm", "show", name, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &view)
	}
	if err != nil {
		return view, nil, remove(fmt.Errorf("read what vm show --json prints: %w", err))
	}
	return view, remove, nil
}

// bareMachine takes its command line from a VM.
func (b bench) bareMachine(ctx context.Context) (_ *machine, err error) {
	view, remove, err := b.model(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = remove(err) }()
	args, err := proc.Args(view.Handles.PID)
	if err != nil {
		return nil, fmt.Errorf("read the command line of QEMU %d: %w", view.Handles.PID, err)
	}
	if _, err := b.banger.run(ctx, "vm", "stop", view.Name); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bb-")
	if err != nil {
		return nil, err
	}
	m := &machine{dir: filepath.Join(dir, "vm"), disks: filepath.Join(dir, "disks")}
	for _, a := range args {
		for _, old := range []string{paths.Under(b.banger.root).VMRun(view.ID), view.VMDir} {
			a = strings.ReplaceAll(a, old, m.dir)
		}
		m.args = append(m.args, a)
	}
	if err := m.copyDisks(ctx, view); err != nil {
		m.remove()
		return nil, err
	}
	return m, nil
}

// copyDisks keeps an empty overlay on the VM's image, and its work disk as it is after a first boot.
func (m *machine) copyDisks(ctx context.Context, view api.VMView) error {
	if err := os.Mkdir(m.disks, 0o700); err != nil {
		return err
	}
	overlay := filepath.Join(m.disks, filepath.Base(view.Runtime.SystemOverlay))
	if view.Disk == "qcow2" {
		out, err := exec.CommandContext(ctx, "qemu-img", "info", "--output=json", view.Runtime.SystemOverlay).Output()
		if err != nil {
			return fmt.Errorf("ask qemu-img about the overlay: %w", err)
		}
		var info struct {
			Backing string `json:"full-backing-filename"`
		}
		if err := json.Unmarshal(out, &info); err != nil {
			return fmt.Errorf("read what qemu-img says of the overlay: %w", err)
		}
		if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", info.Backing, overlay).CombinedOutput(); err != nil {
			return fmt.Errorf("make an overlay: %w\n%s", err, out)
		}
	} else if err := copyNew(ctx, overlay, view.Runtime.SystemOverlay); err != nil {
		return err
	}
	work := view.Runtime.WorkDiskPath
	if _, err := os.Stat(work); err != nil {
		return nil // a VM without one
	}
	return copyNew(ctx, filepath.Join(m.disks, filepath.Base(work)), work)
}

// copyNew copies src to dst, which is made.
func copyNew(ctx context.Context, dst, src string) error {
	if err := os.WriteFile(dst, nil, 0o600); err != nil {
		return err
	}
	return file.CopySparse(ctx, dst, src)
}

func (m *machine) remove() { _ = os.RemoveAll(filepath.Dir(m.dir)) }

// boot measures from the start of QEMU to the first output of a command, and leaves nothing. Making the disks is not
// counted.
func (m *machine) boot(ctx context.Context) (_ time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.dir)) }()
	disks, err := os.ReadDir(m.disks)
	if err != nil {
		return 0, err
	}
	for _, d := range disks {
		if err := copyNew(ctx, filepath.Join(m.dir, d.Name()), filepath.Join(m.disks, d.Name())); err != nil {
			return 0, err
		}
	}
	sock := filepath.Join(m.dir, "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	fd, err := l.File() // descriptor 3 in QEMU, as its command line says
	if err != nil {
		return 0, err
	}
	defer func() { _ = fd.Close() }()

	qemu := exec.CommandContext(ctx, m.args[0], m.args[1:]...)
	qemu.ExtraFiles = []*os.File{fd}
	var said strings.Builder
	qemu.Stderr = &said
	start := time.Now()
	if err := qemu.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
		if err != nil && said.Len() > 0 {
			err = fmt.Errorf("%w\n%s", err, said.String())
		}
	}()
	mux, err := overPort(ctx, sock)
	if err == nil {
		defer func() { _ = mux.Close() }()
		err = firstOutput(ctx, mux.Dial, "echo", "up")
	}
	if err != nil {
		return 0, fmt.Errorf("boot a bare QEMU: %w", err)
	}
	return time.Since(start), nil
}

// firstOutput runs a command by the agent and returns at its first byte of output.
func firstOutput(ctx context.Context, dial guest.Dialer, argv ...string) error {
	client := guest.NewClient(dial)
	if _, err := client.WaitHello(ctx); err != nil {
		return err
	}
	stream, err := client.Exec(ctx, guest.ExecRequest{Argv: argv})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for frames := guest.NewFrameReader(stream); ; {
		kind, payload, err := frames.Next()
		switch {
		case err != nil:
			return fmt.Errorf("read the command's output: %w", err)
		case kind == guest.FrameStdout:
			return nil
		case kind == guest.FrameExit:
			return fmt.Errorf("the command printed nothing and ended with %s", payload)
		}
	}
}

// overPort is the way to an agent behind a virtio-serial port: one session on one connection.
func overPort(ctx context.Context, sock string) (*guest.Mux, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", sock)
	if err != nil {
		return nil, err
	}
	mux, err := guest.NewMux(ctx, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return mux, nil
}
