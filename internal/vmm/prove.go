package vmm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"banger/internal/guest"
)

// Bootable is what a driver boots to see whether a guest runs under KVM.
type Bootable struct {
	Kernel    string // uncompressed ELF vmlinux
	Initramfs string // one that honours guest.ArgProve
	// Release is called once, when nobody reads these files any more: until then they stay where they are. Nil = nobody waits.
	Release func()
}

// Done says that the boot is over.
func (b Bootable) Done() {
	if b.Release != nil {
		b.Release()
	}
}

// ProveBoot finds what to boot; its error says why there is nothing.
type ProveBoot func(ctx context.Context) (Bootable, error)

// Prove runs a VMM whose guest, booted with guest.ArgProve, has its console on the VMM's standard output, until it prints
// guest.ProofLine, and returns how long that took. The process has ended on return, whatever happened: most kills it, and
// so does the end of this one. See Unsure for what its error proves.
func Prove(ctx context.Context, most time.Duration, binary string, args ...string) (time.Duration, error) {
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	cmd := exec.CommandContext(bounded, binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // it is the thread's death that counts
	defer runtime.UnlockOSThread()
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, unsure{err}
	}
	if err := cmd.Start(); err != nil {
		return 0, unsure{err}
	}
	proven, last := printsProof(bufio.NewScanner(console))
	took := time.Since(begin)
	late := bounded.Err() != nil
	cancel() // it has said all it can
	_ = cmd.Wait()
	switch {
	case proven:
		return took, nil
	case late:
		return 0, fmt.Errorf("it printed nothing of use in %v", most)
	}
	words := strings.TrimSpace(stderr.String())
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 0, unsure{fmt.Errorf("%v; it said %.200q", cmd.ProcessState, cmp.Or(words, last))}
	}
	switch {
	case words != "":
		err = errors.New(words)
	case last != "":
		err = fmt.Errorf("it ended, and said last %.200q", last)
	default:
		err = errors.New("it ended without a word")
	}
	if passes(cmp.Or(words, last)) {
		err = unsure{err}
	}
	return 0, err
}

// printsProof reads a console until the proof or the end. The line may follow others, and carries a carriage return.
func printsProof(console *bufio.Scanner) (proven bool, last string) {
	for console.Scan() {
		last = strings.TrimSpace(console.Text())
		if last == guest.ProofLine {
			return true, last
		}
	}
	return false, last
}
