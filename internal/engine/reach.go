package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/sshkey"
	"banger/internal/vm"
)

// reach opens the channel to the agent and configures the guest. It ends early when the VMM does.
func (w *worker) reach(ctx context.Context, r vm.VMRecord) error {
	driver, err := w.e.vmm(r.VMM)
	if err != nil {
		return err
	}
	id := w.e.Handles.Process(r.ID)
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ended, stopWatching := w.untilExit(ctx, id)
	defer stopWatching()

	a := newAgent(driver, refOf(r))
	done := w.stage(r, "boot")
	var net network.Attached
	beside, booting := errgroup.WithContext(ended) // done while the guest boots, which is the first to need it
	var identity guest.Configure
	beside.Go(func() (err error) {
		identity, err = w.e.identity(ctx, r)
		return noSpace(err)
	})
	beside.Go(func() (err error) {
		net, err = w.attach(booting, r)
		return w.networkFault(booting, r, err)
	})
	var hello guest.Hello
	if err = w.checkChannel(r); err == nil {
		hello, err = a.client.WaitHello(booting)
	}
	if failed := beside.Wait(); failed != nil { // always: nothing is written once this has returned
		err = failed
	}
	done(err) // who waits for a guest that is cut off looks again then
	if err == nil {
		done = w.stage(r, "agent")
		identity.Network = net.Guest
		if err = w.configure(ended, r, a, identity); err != nil {
			done(err)
		}
	}
	if err != nil {
		a.close()
		if !w.e.Processes.Alive(id) {
			return fmt.Errorf("the guest did not come up: its VMM ended: %s%s", or(w.exitReason(), "nobody knows how"), w.lastWords(r))
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("the guest did not answer within %v: %w", readyTimeout, err)
		}
		return err
	}
	a.version = hello.Version
	w.mu.Lock()
	old := w.agent
	w.agent, w.ready = a, true
	w.mu.Unlock()
	done(nil) // who waits for the agent looks again then, and need not wait until the record says that the VM runs
	w.mayCome(sessionWait)
	if old != nil {
		old.close()
	}
	return nil
}

// checkChannel tells a machine whose sockets somebody removed: it lives, and who has no session with its guest yet gets none.
// One that has only just been launched may still be about to make them.
func (w *worker) checkChannel(r vm.VMRecord) (err error) {
	if sock := r.Runtime.VSockPath; r.Runtime.State == vm.StateRunning && !exists(sock) {
		err = vm.Errorf(vm.CodeUnavailable, "reach the guest of VM %s: it runs, but its socket %s was removed", r.Name, sock).
			WithHint("banger vm restart %s gives it a new one", r.Name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutOff = err
	return err
}

// identity is what a VM's guest is told of itself, but for its network.
func (e *Engine) identity(ctx context.Context, r vm.VMRecord) (guest.Configure, error) {
	key, err := hostKey(ctx, r)
	if err != nil {
		return guest.Configure{}, err
	}
	user, err := sshkey.Ensure(ctx, e.Paths.SSHKey(), "banger")
	return guest.Configure{ID: string(r.ID), Hostname: r.Name, SSHHostKeyPEM: key.PrivatePEM, AuthorizedKeys: []string{user.Public}, Env: r.Spec.Env}, err
}

// configure gives the guest its identity. It is idempotent: an adopted guest gets it again.
func (w *worker) configure(ctx context.Context, r vm.VMRecord, a *agent, c guest.Configure) error {
	c.Entropy = make([]byte, 64)
	_, _ = rand.Read(c.Entropy) // never fails since Go 1.24
	c.UnixTimeNs = time.Now().UnixNano()
	if _, err := a.client.Configure(ctx, c); err != nil {
		return fmt.Errorf("configure the guest: %w", err)
	}
	w.mu.Lock()
	w.named = r.Name
	w.mu.Unlock()
	return nil
}
