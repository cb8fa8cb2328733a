// Package disk is the seam to root-disk drivers: each makes a VM's system overlay, its copy-on-write view of an
// image. Drivers: reflink, qcow2, dmsnap, copy. Every implementation passes disktest.Suite.
package disk

import "context"

// Overlay names a system overlay. Plain data.
type Overlay struct {
	ID   string // vm.ID
	Base string // the image's ext4 file; shared, never written
	Path string // the overlay's file in the VM's directory
}

// Attached is a usable overlay, and the kernel objects that hold it (to be kept as handles, never in the database).
type Attached struct {
	Path     string // what the VMM opens
	Format   string // "raw" or "qcow2"
	Block    bool   // Path is a block device
	BaseLoop string
	CowLoop  string
	DMName   string
	DMDev    string
}

// Driver makes and removes overlays of one kind.
type Driver interface {
	// Name is the word users write after --disk.
	Name() string

	// Probe says why overlays of this kind cannot be made from an image in imageDir for a VM in vmDir; nil = they can.
	// It tries the real thing on small files of its own, and leaves nothing.
	Probe(ctx context.Context, imageDir, vmDir string) error

	// Sweep clears away what Probes between one of these directories and the VMs' left whose daemon died in them. No Probe is
	// under way.
	Sweep(ctx context.Context, imageDirs []string, vmDir string) error

	// Suits says whether a VMM opens what this driver makes ("qemu" takes qcow2, "firecracker" only raw).
	Suits(vmmName string) bool

	// Ensure makes the overlay if it is not there and attaches it if it is not attached; an existing overlay keeps its
	// content. A half-made one is never published under Path.
	Ensure(ctx context.Context, o Overlay) (Attached, error)

	// Detach releases kernel objects and keeps the content. Detaching what is not attached is success.
	Detach(ctx context.Context, o Overlay) error

	// Flatten writes all that a detached overlay holds into dst, a file that is there and empty: a raw disk of the image's size,
	// which needs neither. Nobody attaches the overlay meanwhile; what comes of it then is not told. One that was never made is
	// vm.CodeNotFound, one that is damaged CodeCorrupt.
	Flatten(ctx context.Context, o Overlay, dst string) error
	// Remove detaches and deletes. Removing what is absent is success.
	Remove(ctx context.Context, o Overlay) error
}
