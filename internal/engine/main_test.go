package engine

import (
	"os"
	"testing"

	"banger/internal/testhost"
)

func TestMain(m *testing.M) {
	testhost.Together()
	os.Exit(m.Run())
}
