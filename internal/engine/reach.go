package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"banger/internal/guest"
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
	hello, err := a.client.WaitHello(ended)
	done(err)
	if err == nil {
		done = w.stage(r, "agent")
		err = w.configure(ended, r, a)
		done(err)
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
	w.mayCome(sessionWait)
	if old != nil {
		old.close()
	}
	return nil
}

// configure gives the guest its identity. It is idempotent: an adopted guest gets it again.
func (w *worker) configure(ctx context.Context, r vm.VMRecord, a *agent) error {
	key, err := hostKey(ctx, r)
	if err != nil {
		return err
	}
	user, err := sshkey.Ensure(ctx, w.e.Paths.SSHKey(), "banger")
	if err != nil {
		return err
	}
	net := w.attached
	if net == nil { // not of this start: another daemon's, or reached once more
		a, err := w.attach(ctx, r)
		if err != nil {
			return err
		}
		net = &a
	}
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails since Go 1.24
	_, err = a.client.Configure(ctx, guest.Configure{
		ID: string(r.ID), Hostname: r.Name, Network: net.Guest, UnixTimeNs: time.Now().UnixNano(),
		SSHHostKeyPEM: key.PrivatePEM, AuthorizedKeys: []string{user.Public}, Entropy: entropy, Env: r.Spec.Env,
	})
	if err != nil {
		return fmt.Errorf("configure the guest: %w", err)
	}
	w.mu.Lock()
	w.named = r.Name
	w.mu.Unlock()
	return nil
}
