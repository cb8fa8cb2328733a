package network

import (
	"crypto/sha256"
	"net"

	"banger/internal/vm"
)

// MAC is a VM's hardware address by rule: locally administered, unicast, the same whenever it is asked for.
func MAC(id vm.ID) string {
	sum := sha256.Sum256([]byte("banger mac " + string(id)))
	sum[0] = sum[0]&^0x03 | 0x02
	return net.HardwareAddr(sum[:6]).String()
}
