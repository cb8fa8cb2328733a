// Package config reads config.toml, the daemon's defaults. It fills in and checks; it decides nothing else.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/docker/go-units"

	"banger/internal/vm"
)

// Config is config.toml with every default filled in.
type Config struct {
	LogLevel string `toml:"log_level"` // debug, info, warn, error
	VM       VM     `toml:"vm"`
	Image    Image  `toml:"image"`

	Firecracker Firecracker `toml:"firecracker"`
	Network     Network     `toml:"network"`
}

// VM holds the defaults of `vm run` and `vm create`.
type VM struct {
	VCPU     int    `toml:"vcpu"`
	Memory   string `toml:"memory"`    // as Docker writes sizes; a bare number is MiB
	DiskSize string `toml:"disk_size"` // of the work disk
	Image    string `toml:"image"`
	Kernel   string `toml:"kernel"`
	VMM      string `toml:"vmm"`
	Disk     string `toml:"disk"`
	Network  string `toml:"network"`
}

// Image configures `image build`.
type Image struct {
	Packages []string `toml:"packages"` // added to every recipe's
	Mirror   string   `toml:"mirror"`   // empty: as the host is configured
}

// Default is the configuration without a file.
func Default() Config {
	return Config{LogLevel: "info", VM: VM{VCPU: vm.DefaultVCPU, Memory: vm.DefaultMemory, DiskSize: vm.DefaultDisk,
		Image: vm.DefaultImage, Kernel: vm.DefaultKernel, VMM: vm.Auto, Disk: vm.Auto, Network: vm.Auto},
		Firecracker: defaultFirecracker(), Network: defaultNetwork()}
}

// Load reads the file at path over the defaults; a missing file is the defaults. An unknown key is an error that names
// the nearest known one.
func Load(path string) (Config, error) {
	c := Default()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	md, err := toml.Decode(string(b), &c)
	if err != nil {
		return c, vm.Errorf(vm.CodeInvalid, "read %s: %w", path, err)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		key := unknown[0].String()
		return c, vm.Errorf(vm.CodeInvalid, "%s: unknown key %q", path, key).WithHint("the nearest known key is %q", nearest(key, known))
	}
	if err := c.check(); err != nil {
		return c, vm.Errorf(vm.CodeInvalid, "%s: %w", path, err)
	}
	return c, nil
}

// known are the keys a file may have; a test holds it against the struct.
var known = []string{"log_level", "vm.vcpu", "vm.memory", "vm.disk_size", "vm.image", "vm.kernel", "vm.vmm", "vm.disk",
	"vm.network", "image.packages", "image.mirror",
	"firecracker.binary", "firecracker.jailer", "firecracker.jail", "firecracker.first_uid", "firecracker.uids", "firecracker.release_url",
	"network.bridge.subnet", "network.bridge.allow_peers", "network.bridge.allow_host", "network.bridge.allow_metadata"}

// check refuses what no VM could be made with: here the file can be named, at the first VM it would be a riddle.
func (c Config) check() error {
	if _, err := c.Level(); err != nil {
		return err
	}
	if c.VM.VCPU < vm.MinVCPU || c.VM.VCPU > vm.MaxVCPU {
		return fmt.Errorf("vm.vcpu = %d: it must be from %d to %d", c.VM.VCPU, vm.MinVCPU, vm.MaxVCPU)
	}
	if _, err := c.MemoryMiB(); err != nil {
		return err
	}
	if _, err := c.DiskBytes(); err != nil {
		return err
	}
	for _, name := range []struct{ key, value string }{{"vm.image", c.VM.Image}, {"vm.kernel", c.VM.Kernel}} {
		if name.value == "" {
			return fmt.Errorf("%s is empty", name.key)
		}
	}
	for _, driver := range []struct {
		key, value string
		known      []string
	}{{"vm.vmm", c.VM.VMM, vm.VMMDrivers()}, {"vm.disk", c.VM.Disk, vm.DiskDrivers()}, {"vm.network", c.VM.Network, vm.NetworkDrivers()}} {
		if !vm.IsDriver(driver.value, driver.known) {
			return fmt.Errorf("%s = %q: it must be %s or one of: %s", driver.key, driver.value, vm.Auto, strings.Join(driver.known, ", "))
		}
	}
	return errors.Join(c.Firecracker.check(), c.Network.check())
}

// Level is the log level.
func (c Config) Level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("log_level %q is not debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}

// MemoryMiB is the default memory.
func (c Config) MemoryMiB() (int64, error) {
	n, err := sizeWithin("vm.memory", c.VM.Memory, vm.MinMemory, vm.MaxMemory)
	return n >> 20, err
}

// DiskBytes is the default size of the work disk.
func (c Config) DiskBytes() (int64, error) {
	return sizeWithin("vm.disk_size", c.VM.DiskSize, vm.MinDisk, vm.MaxDisk)
}

// sizeWithin reads the size of a key; it must be from least to most bytes.
func sizeWithin(key, s string, least, most int64) (int64, error) {
	n, err := size(s)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", key, err)
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%s = %q: it must be from %s to %s", key, s, units.BytesSize(float64(least)), units.BytesSize(float64(most)))
	}
	return n, nil
}

// size reads a size as Docker writes it; a bare number is MiB.
func size(s string) (int64, error) {
	n, err := units.RAMInBytes(strings.TrimSpace(s))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is not a size such as 512M or 2G", s)
	}
	if strings.Trim(s, " 0123456789") == "" {
		if n > 1<<40 {
			return 0, fmt.Errorf("%q MiB is too much", s)
		}
		n <<= 20
	}
	return n, nil
}

// nearest returns the word with the fewest edits from s; a key without its table counts as with it.
func nearest(s string, words []string) string {
	return slices.MinFunc(words, func(a, b string) int { return distance(s, a) - distance(s, b) })
}

func distance(s, word string) int {
	d := edits(s, word)
	if _, last, ok := strings.Cut(word, "."); ok {
		d = min(d, edits(s, last)+1)
	}
	return d
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
