package network

import "testing"

// A MAC must not change between versions: a guest's interface would.
func TestMACIsStable(t *testing.T) {
	if got, want := MAC("0123456789ab"), "f6:7f:24:61:75:6c"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
