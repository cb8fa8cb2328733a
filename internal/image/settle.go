package image

import (
	"context"
	"os"

	"banger/internal/host/ext4"
)

// What makes a machine itself, as scrub has it for a tree.
var (
	selves = []string{
		"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_rsa_key.pub", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ecdsa_key.pub",
		"/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/var/lib/systemd/random-seed", "/var/lib/dbus/machine-id",
	}
	machineIDs = []string{"/etc/machine-id"} // empty, it is set at boot; absent, systemd takes that for the first boot of all
)

// settle checks and mends the file system of a disk from elsewhere, gives it at least the room that others have, and finds its
// init system.
func settle(ctx context.Context, root string, cleared bool) (init string, err error) {
	if err := ext4.Check(ctx, root); err != nil {
		return "", err
	}
	if cleared {
		if err := ext4.Clear(ctx, root, selves, machineIDs); err != nil {
			return "", err
		}
		if err := ext4.Check(ctx, root); err != nil {
			return "", err
		}
	}
	st, err := os.Stat(root)
	if err != nil {
		return "", err
	}
	if size, err := ext4.SizeOf(root); err != nil || size < max(st.Size(), rootSize) {
		if err != nil {
			return "", err
		}
		if err := ext4.Enlarge(ctx, root, max(st.Size(), rootSize)); err != nil {
			return "", err
		}
	}
	return initOn(ctx, root)
}
