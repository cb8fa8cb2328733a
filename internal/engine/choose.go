package engine

import (
	"context"
	"fmt"

	"banger/internal/network"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// choice is what choose has picked.
type choice struct {
	vmm     vmm.Driver
	net     network.Driver
	pending bool  // the VMM still has to show, once there is a kernel, that it runs guests: choose again then
	passed  error // why a better VMM that could be used is passed over; nil = none is
}

// choose picks VMM and network together: the first VMM that is usable, has a network that suits it, and is what was asked
// for.
func (e *Engine) choose(ctx context.Context, spec vm.Spec) (choice, error) {
	if err := e.checkNetworkName(spec.Network); err != nil {
		return choice{}, err
	}
	var names []string
	var first error // why the first one that was asked for cannot be used
	barred := ""    // the VMM for which it is the want of a network: of one that could be used, that is what helps
	for _, d := range e.VMMs {
		names = append(names, d.Name())
		if spec.VMM != vm.Auto && spec.VMM != d.Name() {
			continue
		}
		p := d.Probe(ctx)
		if !p.Usable && !p.Pending {
			if first == nil || spec.VMM == vm.Auto && barred == "" { // under auto, the last resort's reason is what helps
				first = vm.Errorf(vm.CodeMissing, "VMM %s cannot be used here: %s", d.Name(), p.Why).WithHint("%s", p.Hint)
			}
			continue
		}
		net, err := e.chooseNetwork(ctx, spec.Network, d.Name())
		if err == nil {
			c := choice{vmm: d, net: net, pending: p.Pending}
			if barred != "" {
				c.passed = fmt.Errorf("not %s: %w", barred, first)
			}
			return c, nil
		}
		if barred == "" {
			first, barred = err, d.Name()
		}
	}
	if err := ctx.Err(); err != nil {
		return choice{}, err
	}
	if first != nil {
		return choice{}, first
	}
	return choice{}, vm.Errorf(vm.CodeInvalid, "no VMM is called %q", spec.VMM).WithHint("--vmm takes auto or one of %v", names)
}

// Auto is what a VM gets that asks for neither VMM nor network, as things are.
func (e *Engine) Auto(ctx context.Context) (vmm.Auto, error) {
	c, err := e.choose(ctx, vm.Spec{VMM: e.Defaults.VMM, Network: e.Defaults.Network})
	if err != nil {
		return vmm.Auto{}, err
	}
	return vmm.Auto{VMM: c.vmm.Name(), Network: c.net.Name(), Pending: c.pending, Passed: c.passed}, nil
}

func (e *Engine) checkNetworkName(want string) error {
	var names []string
	for _, d := range e.Networks {
		if want == vm.Auto || want == d.Name() {
			return nil
		}
		names = append(names, d.Name())
	}
	return vm.Errorf(vm.CodeInvalid, "no network is called %q", want).WithHint("--network takes auto or one of %v", names)
}

// noNetwork is the driver that auto never takes where there is another: a VM without a network is something to be asked for.
const noNetwork = "none"

func (e *Engine) chooseNetwork(ctx context.Context, want, vmmName string) (network.Driver, error) {
	var last error
	for _, d := range e.Networks {
		if want != d.Name() && (want != vm.Auto || d.Name() == noNetwork && len(e.Networks) > 1) {
			continue
		}
		if !d.Suits(vmmName) {
			if want != vm.Auto {
				return nil, vm.Errorf(vm.CodeInvalid, "%s does not take network %s", vmmName, want).WithHint("leave the network at %s", vm.Auto)
			}
			continue
		}
		err := d.Probe(ctx)
		if err == nil {
			return d, nil
		}
		last = fmt.Errorf("use network %s: %w", d.Name(), err)
	}
	if last == nil {
		last = vm.Errorf(vm.CodeMissing, "no network suits %s", vmmName)
	}
	return nil, last
}
