package disk

import (
	"context"
	"errors"
	"strings"
	"testing"

	"banger/internal/vm"
)

type fake struct {
	Driver // the rest is never called
	name   string
	vmm    string // suits this one only; "" all
	err    error  // of Probe
}

func (f fake) Name() string                                { return f.name }
func (f fake) Suits(vmm string) bool                       { return f.vmm == "" || f.vmm == vmm }
func (f fake) Probe(context.Context, string, string) error { return f.err }

func TestChoose(t *testing.T) {
	no := errors.New("no reflinks")
	reflink, broken := fake{name: "reflink"}, fake{name: "reflink", err: no}
	qcow2, full := fake{name: "qcow2", vmm: "qemu"}, fake{name: "copy"}
	for _, c := range []struct {
		name    string
		drivers []Driver
		want    string
		vmm     string
		got     string
		why     string // part of it
		code    vm.Code
	}{
		{"best first, in whatever order they come", []Driver{full, qcow2, reflink}, "auto", "qemu", "reflink", "best", ""},
		{"empty means auto", []Driver{full, reflink}, "", "qemu", "reflink", "best", ""},
		{"passes over what does not work, and says so", []Driver{broken, qcow2, full}, "auto", "qemu", "qcow2", "not reflink: no reflinks", ""},
		{"passes over what does not suit", []Driver{broken, qcow2, full}, "auto", "firecracker", "copy", "not reflink", ""},
		{"none works", []Driver{broken, qcow2}, "auto", "firecracker", "", "", vm.CodeMissing},
		{"none there", nil, "auto", "qemu", "", "", vm.CodeMissing},
		{"asked for", []Driver{reflink, full}, "copy", "qemu", "copy", "asked for", ""},
		{"asked for, does not work", []Driver{broken, full}, "reflink", "qemu", "", "", vm.CodeMissing},
		{"asked for, does not suit", []Driver{qcow2, full}, "qcow2", "firecracker", "", "", vm.CodeInvalid},
		{"asked for, unknown", []Driver{qcow2, full}, "zfs", "qemu", "", "", vm.CodeInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, why, err := Choose(t.Context(), c.drivers, c.want, c.vmm, "/images", "/vms")
			if c.code != "" {
				if vm.CodeOf(err) != c.code || d != nil {
					t.Fatalf("%v %v, want code %s", d, err, c.code)
				}
				return
			}
			if err != nil || d.Name() != c.got || !strings.Contains(why, c.why) {
				t.Errorf("%v %q %v, want %s because of %q", d, why, err, c.got, c.why)
			}
		})
	}
	if _, _, err := Choose(t.Context(), []Driver{qcow2, full}, "zfs", "qemu", "", ""); vm.HintOf(err) != "use one of auto, qcow2, copy" {
		t.Errorf("hint %q", vm.HintOf(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Choose(ctx, []Driver{broken}, "auto", "qemu", "", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
