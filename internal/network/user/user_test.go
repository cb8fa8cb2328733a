package user

import (
	"testing"

	"banger/internal/network"
	"banger/internal/network/networktest"
)

func TestSuite(t *testing.T) {
	networktest.Suite(t, func(*testing.T) network.Driver { return New() })
}
