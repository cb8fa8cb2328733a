package fullcopy

import (
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	"banger/internal/testhost"
)

var _ disk.Driver = Driver{}

func TestSuite(t *testing.T) { disktest.Suite(t, testhost.Dir(t), func() disk.Driver { return New() }) }

func TestNoSpace(t *testing.T) { disktest.NoSpace(t, testhost.Dir(t), New()) }
