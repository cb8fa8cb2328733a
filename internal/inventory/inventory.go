// Package inventory says what of the host is ours: every object that carries our mark, whose it is, and what belongs to
// nobody any more. It removes only that.
//
// Who makes a kind of object lists it (Kind), with the proof that it is of this root; whether it is still wanted is judged
// here, from the records, for all kinds alike. The package makes no object, knows no driver, and looks at the host through
// kinds alone.
package inventory

import (
	"context"
	"time"

	"banger/internal/vm"
)

// Object is one thing on the host that carries our mark. Several daemons of ours may be at work on one host, each with a
// root of its own: a mark that says "banger" is no proof of whose it is.
type Object struct {
	Kind string // "process", "tap device": for people, and the same for all of one Kind
	Name string // what it is found by: a path, an interface's name, a pid. Kind and name together are one object's alone
	More string // what people know it by besides, such as "/dev/loop3" of a file; may be empty

	VM    vm.ID   // by its name or path; empty when it is no single VM's
	Users []vm.ID // the VMs that need it, where it is several VMs'

	Proof string // why it is this root's, the end of "it is ours: …"; empty when that cannot be proven
	Doubt string // then: why not
	Busy  string // what this daemon is doing with it at this moment; empty when nothing

	Run   bool // only a run of the VM needs it: a VM that is stopped has none
	Scrap bool // nobody needs it, whether its VM has a record or not: what is left of a write that never ended
	// Made is when it was made, zero when nobody can know: a database that is younger knows nothing of it.
	Made time.Time
	// Holds tells people what would be lost with it, such as "its disks, 2.1 GiB"; empty for what is only a name or a handle.
	Holds string
}

// Kind is one kind of object. Every driver, and whatever else makes something that a crash could leave, has its own.
type Kind interface {
	// Rank says when in the order of removal its turn comes.
	Rank() Rank

	// List returns all that there is on the host, also what is another root's. What could be found is returned beside an
	// error. It must not list as idle what this process is just making without a record (Busy says that).
	List(ctx context.Context) ([]Object, error)

	// Remove removes exactly this object, after it has looked again whether it is still the one that was listed. Removing
	// what is absent is success. It is called for objects with a Proof alone, and for a VM's that has a record only when it
	// is Scrap.
	Remove(ctx context.Context, o Object) error
}

// Rank is a place in the order of removal: who holds something goes before what it holds.
type Rank int

// The ranks, first to last.
const (
	Processes Rank = iota
	Mounts
	Networks
	Devices // stand on loop devices
	Loops   // stand on files
	Shared  // what several VMs use
	Cgroups
	Files
	Homes // the directories that name a VM: who is interrupted before them finds everything again
)

// Source is what makes objects on the host: a driver, a library. One that makes none returns none, and so says that it was
// thought of.
type Source interface {
	Kinds(p Place) []Kind
}

// Status is the verdict on an object.
type Status string

// The verdicts.
const (
	Owned   Status = "owned"   // a VM or a work under way needs it
	Orphan  Status = "orphan"  // it is this root's, and nobody needs it
	Foreign Status = "foreign" // it carries banger's mark, and may be another root's
)

// Finding is an object with the verdict on it.
type Finding struct {
	Object
	Status Status
	Owner  string // name of the VM (the first one's), empty for an orphan, or where it is no VM's
	Why    string // a sentence for people, in lower case and without its end
	Kept   string // why it is not removed though it is an orphan
	rank   Rank
	stale  bool // of a VM with a record: its worker takes it down
	kind   Kind
}

// Removable says whether Fix would remove it.
func (f Finding) Removable() bool { return f.Status == Orphan && f.Kept == "" }
