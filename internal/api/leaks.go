package api

import "banger/internal/vm"

// Paths about what of the host is banger's.
const (
	PathObjects = "/v1/objects"     // GET → []HostObject, in the order of removal
	PathFix     = "/v1/objects/fix" // POST FixRequest → []HostObject: those that were named and were orphans
)

// The verdicts on an object of the host.
const (
	ObjectOwned   = "owned"   // a VM, or work that is under way, needs it
	ObjectOrphan  = "orphan"  // it is this root's, and nobody needs it
	ObjectForeign = "foreign" // it carries banger's mark, and may be another root's; never touched
)

// HostObject is one thing on the host that carries banger's mark.
type HostObject struct {
	Kind   string `json:"kind"`   // process, tap device, loop device, …
	Name   string `json:"name"`   // a pid, a path, an interface: with kind, one object's alone
	Status string `json:"status"` // owned, orphan, foreign
	Owner  string `json:"owner"`  // the VM's name; empty for an orphan, and for what is no VM's
	Why    string `json:"why"`    // a sentence for people

	More  string `json:"more,omitempty"`  // what people know it by besides: /dev/loop3
	VM    vm.ID  `json:"vm,omitempty"`    // the VM that its mark names, whether there is one or not
	Holds string `json:"holds,omitempty"` // what is lost with it
	Kept  string `json:"kept,omitempty"`  // why it is not removed though it is an orphan

	Removed bool   `json:"removed,omitempty"` // answers FixRequest
	Error   string `json:"error,omitempty"`   // why not, where that was tried
}

// FixRequest removes orphans: those that are named, and still are some.
type FixRequest struct {
	Objects []ObjectName `json:"objects"`
	Discard []vm.ID      `json:"discard,omitempty"` // VMs whose record may have been lost: of these the named go too, with their disks
}

// ObjectName names an object.
type ObjectName struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}
