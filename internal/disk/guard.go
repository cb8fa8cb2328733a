package disk

import "context"

// The states of an overlay's store.
const (
	StoreOK       = "ok"
	StoreOverflow = "overflow" // the store itself is full: writes fail
	StoreInvalid  = "invalid"  // a write to the store failed: the kernel lets nobody read or write any more
)

// Health is how an overlay's store fares. Sizes are in bytes.
type Health struct {
	State    string
	Used     int64 // of the store
	Total    int64 // the most the store will ever take
	HostFree int64 // free on the store's file system for ordinary users; what root may take beyond is the last reserve
	Frozen   bool
}

// Guard is a driver whose overlays do not survive a full file system of the host under a running guest. Who runs guests
// looks at Health from time to time, freezes a guest's disk before HostFree is gone, and thaws it when there is room.
type Guard interface {
	// Health looks at an overlay, attached or not. It does no I/O to the overlay, so that it answers when that is frozen.
	Health(ctx context.Context, o Overlay) (Health, error)

	// Freeze makes the guest's I/O wait. Freezing what is frozen, or not attached, is success. Detach of a frozen overlay
	// fails the I/O that waits; Ensure thaws it.
	Freeze(ctx context.Context, o Overlay) error

	// Thaw lets it go on. Thawing what is not frozen, or not attached, is success.
	Thaw(ctx context.Context, o Overlay) error

	// Abandon makes the I/O that waits in a frozen overlay fail, and all that comes until it is detached: for a VMM that has been
	// killed and cannot end while it waits. What is in the store stays. Abandoning what is not frozen, or not attached, is success.
	Abandon(ctx context.Context, o Overlay) error

	// Repair makes a detached overlay in StoreInvalid usable again once there is room; vm.CodeConflict: it is attached. The guest
	// loses the writes that it was told had failed, as it would on a disk with bad blocks, and no others. Repairing what is well
	// is success.
	Repair(ctx context.Context, o Overlay) error
}
