package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/image"
	"banger/internal/vm"
)

// MaxScript bounds a script in bytes.
const MaxScript = 256 << 10

// runScript has the guest run what it is sent, from its work disk: nothing of it comes into the image.
const runScript = "umask 077; cat >/root/.provision && chmod 700 /root/.provision && exec /root/.provision </dev/null"

// BuildScripted makes an image of packages, and of what a script does as root in a VM of these, which is gone when this returns. An
// image that was made so already is returned as it is. Errors: those of a build, vm.CodeInvalid (the script, or that it failed).
func (e *Engine) BuildScripted(ctx context.Context, o image.BuildOptions, script string, report vm.Report) (img vm.Image, err error) {
	if len(script) > MaxScript {
		return img, vm.Errorf(vm.CodeInvalid, "build an image: the script has %d bytes, more than the most, 256 KiB", len(script))
	}
	base, err := e.Images.BuildBase(ctx, o, script, report)
	if err != nil || base.Release == nil {
		return base.Image, err
	}
	defer func() { // a base without a name goes with its VM, if there was one
		err = errors.Join(err, e.Images.Sweep(context.WithoutCancel(ctx), base.Image.Digest))
	}()
	release := sync.OnceFunc(base.Release)
	defer release() // where it came to no VM
	what := base.Adopt.What
	watch := e.Watch()
	defer watch.Stop()
	// A VM that goes with its session: so it does when this daemon dies.
	r, err := e.createOn(ctx, api.CreateRequest{AutoRemove: true, Start: true, Labels: map[string]string{"build": base.Adopt.Name}}, only{base, release}, report)
	if err != nil {
		return img, fmt.Errorf("%s: %w", what, err)
	}
	w := e.known(r.ID)
	if w == nil {
		return img, errStopping
	}
	end := w.beginSession()
	defer func() {
		err = errors.Join(err, e.dispose(ctx, r.ID))
		end()
	}()
	room, stop := e.whileRoom(ctx, r)
	defer stop()
	if _, err = watch.Started(room, r.ID, report); err == nil {
		err = e.provision(room, r.ID, base.Adopt.Name, script, report)
	}
	if err == nil {
		stopping := e.Watch()
		defer stopping.Stop()
		if _, err = e.Stop(room, string(r.ID), false, 0); err == nil {
			r, err = stopping.Stopped(room, r.ID, report)
		}
		if err == nil && r.Runtime.LastError != "" { // what the script wrote last may be on no disk
			err = vm.Errorf(vm.CodeUnavailable, "%s", r.Runtime.LastError).WithHint("nothing was made; build it again")
		}
	}
	if err != nil && room.Err() != nil {
		err = context.Cause(room)
	}
	if ctx.Err() != nil {
		return img, vm.Errorf(vm.CodeCanceled, "%s: %w", what, ctx.Err())
	}
	if err != nil {
		return img, vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
	}
	disks, err := e.disk(r.Disk)
	if err != nil {
		return img, err
	}
	return e.adopt(ctx, r, disks, base.Adopt, report)
}

// only is one image, whatever it is asked for, that is held already.
type only struct {
	base    image.Base
	release func()
}

func (only) Known(context.Context, string) error { return nil }

func (o only) Use(context.Context, string, vm.Report) (vm.Image, func(), error) {
	i := o.base.Image
	i.Name = o.base.Adopt.Name // for who looks at VMs meanwhile
	return i, o.release, nil
}

// dispose deletes a VM and waits until it is gone, or ctx ends: it goes all the same.
func (e *Engine) dispose(ctx context.Context, id vm.ID) error {
	watch := e.Watch()
	defer watch.Stop()
	_, err := e.Delete(context.WithoutCancel(ctx), string(id))
	if err == nil && ctx.Err() == nil {
		err = watch.Gone(ctx, id, nil)
	}
	if isNotFound(err) {
		return nil
	}
	return err
}

// provision runs the script in the guest, and reports what it says line by line.
func (e *Engine) provision(ctx context.Context, id vm.ID, name, script string, report vm.Report) (err error) {
	done := report.Stage(vm.Event{Name: name}, "script")
	defer func() { done(err) }()
	c, err := e.Agent(ctx, string(id))
	if err != nil {
		return err
	}
	conn, err := c.Exec(ctx, guest.ExecRequest{Argv: []string{"/bin/sh", "-c", runScript}, Env: []string{"DEBIAN_FRONTEND=noninteractive"}, Dir: "/", Stdin: true})
	if err != nil {
		return err
	}
	said := &told{each: func(line string) { report.Send(vm.Event{Kind: "note", Stage: "script", Name: name, Text: line}) }}
	exit, err := guest.RunExec(ctx, conn, guest.Stdio{In: strings.NewReader(script), Out: said, Err: said})
	if err != nil {
		return fmt.Errorf("run the script: %w", err)
	}
	last := said.end()
	if exit.Code == 0 {
		return nil
	}
	if exit.Reason != "" {
		last = exit.Reason
	}
	hint := "a script begins with #!, or is one of /bin/sh, and 'set -e' ends it where something fails"
	if with := interpreter(script); with != "" && exit.Code == commandNotFound {
		hint = "a command is not in the image, or the script's own " + with + ": --packages adds what has it"
	}
	return vm.Errorf(vm.CodeInvalid, "the script ended with exit status %d: %s", exit.Code, or(last, "it said nothing")).WithHint("nothing was made; %s", hint)
}

// commandNotFound is a shell's exit status, also where a script's interpreter is what is not found: it names the script then.
const commandNotFound = 127

// interpreter is the program that a script's first line names; empty where it names none.
func interpreter(script string) string {
	first, _, _ := strings.Cut(script, "\n")
	line, ok := strings.CutPrefix(first, "#!")
	if words := strings.Fields(line); ok && len(words) > 0 {
		return words[0]
	}
	return ""
}

// told is a writer that hands on whole lines, and keeps the last ones. Both outputs of a command may write to it.
type told struct {
	each func(string)

	mu   sync.Mutex
	part []byte
	last []string
}

const (
	toldLines = 10
	toldBytes = 1 << 10 // of one line
)

func (t *told) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range p {
		if c == '\n' {
			t.line()
		} else if len(t.part) < toldBytes {
			t.part = append(t.part, c)
		}
	}
	return len(p), nil
}

func (t *told) line() {
	s := strings.TrimSpace(string(t.part))
	if t.part = t.part[:0]; s == "" {
		return
	}
	t.each(s)
	if t.last = append(t.last, s); len(t.last) > toldLines {
		t.last = t.last[1:]
	}
}

// end hands on what has no end of line, and returns the last lines.
func (t *told) end() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line()
	return strings.Join(t.last, "\n")
}
