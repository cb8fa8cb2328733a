package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/host/proc"
	"banger/internal/inventory"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Kinds implements inventory.Source: a QEMU leaves nothing but itself.
func (d *Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{vmm.ProcessKind(func(context.Context) ([]vmm.Machine, error) { return machines(p) })}
}

// machines are the QEMUs with an API socket that is called as ours are.
func machines(p inventory.Place) (all []vmm.Machine, err error) {
	found, err := proc.Find(func(args []string) bool { return socketOf(args) != "" })
	if err != nil {
		return nil, fmt.Errorf("look for QEMUs: %w", err)
	}
	for _, process := range found {
		args, err := proc.Args(process.PID)
		if err != nil {
			continue
		}
		sock := socketOf(args)
		id, err := vm.ParseID(filepath.Base(filepath.Dir(sock)))
		if err != nil || !proc.Alive(process) { // the last look: these were its arguments
			continue
		}
		m := vmm.Machine{ID: id, Process: process, Program: filepath.Base(args[0])}
		switch uid, err := proc.UID(process.PID); {
		case sock != filepath.Join(p.Sockets(id), "api.sock"):
			m.Doubt = "its API socket is " + sock + ", which is not below " + p.Run
		case err != nil || uid != os.Geteuid():
			m.Doubt = "it does not run as this daemon's user, and anybody can choose their command line"
		default:
			m.Proof = "its API socket is " + sock
		}
		all = append(all, m)
	}
	return all, nil
}

// socketOf is the API socket of a QEMU's command line, when it is that of a VM: …/ID/api.sock.
func socketOf(args []string) string {
	if len(args) == 0 || !strings.HasPrefix(filepath.Base(args[0]), "qemu-system") {
		return ""
	}
	i := slices.Index(args, "-qmp")
	if i < 0 || i+1 >= len(args) {
		return ""
	}
	value, _, _ := strings.Cut(strings.TrimPrefix(args[i+1], "unix:"), ",server=")
	sock := strings.ReplaceAll(value, ",,", ",")
	if _, err := vm.ParseID(filepath.Base(filepath.Dir(sock))); err != nil || filepath.Base(sock) != "api.sock" || qmpArgument(sock) != args[i+1] {
		return ""
	}
	return sock
}
