package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/network"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// missing is a VMM that is not installed.
type missing struct{ vmm.Driver }

func (missing) Name() string                    { return "firecracker" }
func (missing) Probe(context.Context) vmm.Probe { return vmm.Probe{Why: "it is not installed"} }
func (missing) Features() (none vmm.Features)   { return none }

// barred is a network that the host is in the way of.
type barred struct{ network.Driver }

func (barred) Probe(context.Context) error { return errors.New("a route is in the way") }

// Of several VMMs the one that could be used tells what is wrong: installing another would not help.
func TestTheNetworkThatIsWrongIsNamed(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	usable := d.VMMs[0]
	d.Networks = []network.Driver{barred{d.Networks[0]}}
	for name, vmms := range map[string][]vmm.Driver{
		"first": {usable, missing{usable}},
		"last":  {missing{usable}, usable},
	} {
		d.VMMs = vmms
		_, err := d.Create(t.Context(), api.CreateRequest{Network: d.Networks[0].Name()}, nil)
		if err == nil || !strings.Contains(err.Error(), "a route is in the way") {
			t.Errorf("%s: %v (code %s)", name, err, vm.CodeOf(err))
		}
	}
}

// A better VMM that could be used, but for its network, is not passed over in silence.
func TestABetterVMMIsNotPassedOverInSilence(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	usable := d.VMMs[0]
	d.VMMs = []vmm.Driver{better{usable}, usable}
	d.Networks = []network.Driver{apart{barred{d.Networks[0]}}, plain{d.Networks[0]}}
	got, err := d.Auto(t.Context())
	if err != nil || got.VMM != usable.Name() || got.Passed == nil || got.Passed.Error() != "not better: use network apart: a route is in the way" {
		t.Errorf("%+v, %v", got, err)
	}
	r, err := d.Create(t.Context(), api.CreateRequest{}, nil)
	if why := d.WhyVMM(t.Context(), r); err != nil || !strings.HasSuffix(why, "; not better: use network apart: a route is in the way") {
		t.Errorf("a VM says %q, %v", why, err)
	}
	r.Spec.VMM = r.VMM
	if why := d.WhyVMM(t.Context(), r); strings.Contains(why, "better") {
		t.Errorf("one that asked for its VMM says %q", why)
	}
	// Who makes a VM is told where something is in the way that can be moved.
	for code, want := range map[vm.Code]int{vm.CodeConflict: 1, vm.CodeMissing: 0} {
		d.Networks[0] = apart{inTheWay{d.Networks[1], code}}
		var notes []string
		r, err := d.Create(t.Context(), api.CreateRequest{}, func(e vm.Event) {
			if e.Kind == "note" {
				notes = append(notes, e.Text)
			}
		})
		if err != nil || len(notes) != want || want > 0 && notes[0] != r.Name+" gets "+usable.Name()+" with network "+d.Networks[1].Name()+
			", not better: use network apart: a route is in the way (move it)" {
			t.Errorf("%s: told %q, %v", code, notes, err)
		}
	}
	d.VMMs = d.VMMs[1:]
	if got, err := d.Auto(t.Context()); err != nil || got.Passed != nil {
		t.Errorf("the best: %+v, %v", got, err)
	}
}

// inTheWay is a network that cannot be used for a reason of that code.
type inTheWay struct {
	network.Driver
	code vm.Code
}

func (n inTheWay) Probe(context.Context) error {
	return vm.Errorf(n.code, "a route is in the way").WithHint("move it")
}

// better is a VMM that only the network "apart" suits; "plain" suits all others.
type better struct{ vmm.Driver }

func (better) Name() string { return "better" }

type apart struct{ network.Driver }

func (apart) Name() string         { return "apart" }
func (apart) Suits(of string) bool { return of == "better" }

type plain struct{ network.Driver }

func (plain) Name() string         { return "plain" }
func (plain) Suits(of string) bool { return of != "better" }
