package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/host/file"
	"banger/internal/host/proc"
	"banger/internal/inventory"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Kinds implements inventory.Source.
func (d *Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{
		vmm.ProcessKind(func(context.Context) ([]vmm.Machine, error) { return d.machines(p) }),
		jails{p},
	}
}

// machines are the processes with an id among their arguments that one of our VMs could have, and with either a proof that
// they are such a VM's or the name of a Firecracker, or jailer.
func (d *Driver) machines(p inventory.Place) (all []vmm.Machine, err error) {
	found, err := proc.Find(func(args []string) bool { return idOf(args) != "" })
	if err != nil {
		return nil, fmt.Errorf("look for Firecrackers: %w", err)
	}
	for _, process := range found {
		args, err := proc.Args(process.PID)
		if err != nil {
			continue
		}
		id := idOf(args)
		ref := refOf(p, id)
		served := d.serves(process, ref)
		if id == "" || !served && !known(args) || !proc.Alive(process) {
			continue
		}
		m := vmm.Machine{ID: id, Process: process, Program: filepath.Base(args[0])}
		if served {
			m.Proof = "its API socket or its root directory is below " + p.Root
		} else {
			m.Doubt = "neither its API socket nor its root directory is below " + p.Root
		}
		all = append(all, m)
	}
	return all, nil
}

func refOf(p inventory.Place, id vm.ID) vmm.Ref {
	return vmm.Ref{ID: id, Dir: p.Dir(id), APISock: filepath.Join(p.Sockets(id), "api.sock"), AgentSock: filepath.Join(p.Sockets(id), "agent.sock")}
}

// idOf is the VM of a Firecracker's command line; empty when it names none.
func idOf(args []string) vm.ID {
	id, err := vm.ParseID(valueOf(args, "--id"))
	if err != nil {
		return ""
	}
	return id
}

// known says that a program has a name that Firecrackers and jailers have: other programs take an --id too.
func known(args []string) bool {
	program := filepath.Base(args[0])
	return strings.Contains(program, "firecracker") || strings.Contains(program, "jailer")
}

// jails are the directories that processes had as their root.
type jails struct{ p inventory.Place }

func (jails) Rank() inventory.Rank { return inventory.Files }

func (k jails) List(context.Context) ([]inventory.Object, error) {
	entries, err := inventory.VMDirs(k.p.VMs)
	if err != nil {
		return nil, fmt.Errorf("list jails: %w", err)
	}
	var out []inventory.Object
	for _, e := range entries {
		id := vm.ID(e.Name())
		jail := jailBase(refOf(k.p, id))
		if fi, err := os.Lstat(jail); err == nil && fi.IsDir() {
			out = append(out, inventory.Object{Kind: "jail", Name: jail, VM: id, Run: true, Proof: "it lies in " + k.p.VMs})
		}
	}
	return out, nil
}

func (k jails) Remove(ctx context.Context, o inventory.Object) error {
	_, there, err := inventory.Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	return file.RemoveTree(ctx, "jail", o.Name)
}
