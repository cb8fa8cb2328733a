package testhost

import "testing"

func TestLostGuest(t *testing.T) {
	const said = "banger: start VM x: the guest did not come up: its VMM ended: exit status 0; its console ends with: "
	for text, want := range map[string]bool{
		said + "[    0.946453] PCI: Fatal: No config space access function found\n  hint: x":      true,
		said + "banger-guest: cannot go on: wait for disk serial:banger-root: not there":          false,
		said + "[    1.2] Kernel panic - not syncing: Attempted to kill init!":                    false,
		said + "[    1.2] reboot: Restarting system":                                              false,
		"banger: start VM x: the guest did not answer within 3m0s":                                false,
		"the guest did not come up: its VMM ended: signal: killed; its console ends with: [ 1] x": false,
	} {
		if got := LostGuest(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
