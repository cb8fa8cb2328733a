package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

func load(t *testing.T, content string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func TestLoad(t *testing.T) {
	if c, err := Load(filepath.Join(t.TempDir(), "absent.toml")); err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("a missing file: %+v, %v", c, err)
	}
	c, err := load(t, "log_level = \"debug\"\n[vm]\nmemory = \"2G\"\nvcpu = 4\n[image]\npackages = [\"git\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := c.MemoryMiB(); m != 2048 || c.VM.VCPU != 4 || c.VM.Image != vm.DefaultImage || !slices.Equal(c.Image.Packages, []string{"git"}) {
		t.Errorf("got %+v", c)
	}
}

func TestLoadRefuses(t *testing.T) {
	for content, want := range map[string]string{
		"[vm]\nmemmory = \"1G\"":    `unknown key "vm.memmory"`,
		"memory = \"1G\"":           `unknown key "memory"`,
		"log_level = \"loud\"":      "log_level",
		"[vm]\nmemory = \"0\"":      "vm.memory",
		"[vm]\nmemory = \"lots\"":   "vm.memory",
		"[vm]\ndisk_size = \"-1G\"": "vm.disk_size",
		"[vm]\nmemory = \"95M\"":    `vm.memory = "95M": it must be from 96MiB to 8TiB`,
		"[vm]\nmemory = \"9T\"":     "vm.memory",
		"[vm]\ndisk_size = \"15M\"": `vm.disk_size = "15M": it must be from 16MiB to 16TiB`,
		"[vm]\ndisk_size = \"17T\"": "vm.disk_size",
		"[vm]\nvcpu = -3":           "vm.vcpu = -3: it must be from 1 to 32",
		"[vm]\nvcpu = 0":            "vm.vcpu = 0",
		"[vm]\nvcpu = 33":           "vm.vcpu = 33",
		"[vm]\nvmm = \"xen\"":       `vm.vmm = "xen": it must be auto or one of: `,
		"[vm]\ndisk = \"floppy\"":   `vm.disk = "floppy"`,
		"[vm]\nnetwork = \"\"":      `vm.network = ""`,
		"[vm]\nimage = \"\"":        "vm.image is empty",
		"[vm]\nkernel = \"\"":       "vm.kernel is empty",
		"[vm\n":                     "read ",

		"[network.bridge]\nsubnet = \"172.30.0.0/30\"":    "network.bridge.subnet",
		"[network.bridge]\nsubnet = \"0.0.0.0/8\"":        `network.bridge.subnet = "0.0.0.0/8": 0.0.0.0/8 holds`,
		"[network.bridge]\nsubnet = \"127.5.0.0/16\"":     `network.bridge.subnet = "127.5.0.0/16": 127.0.0.0/8 holds loopback addresses`,
		"[network.bridge]\nsubnet = \"169.254.0.0/16\"":   `network.bridge.subnet = "169.254.0.0/16": 169.254.0.0/16 holds link-local`,
		"[network.bridge]\nsubnet = \"169.0.0.0/8\"":      `network.bridge.subnet = "169.0.0.0/8": 169.254.0.0/16 holds link-local`,
		"[network.bridge]\nsubnet = \"224.0.0.0/24\"":     `network.bridge.subnet = "224.0.0.0/24": 224.0.0.0/4 holds multicast`,
		"[network.bridge]\nsubnet = \"239.255.0.0/16\"":   `network.bridge.subnet = "239.255.0.0/16": 224.0.0.0/4 holds multicast`,
		"[network.bridge]\nsubnet = \"240.0.0.0/8\"":      `network.bridge.subnet = "240.0.0.0/8": 240.0.0.0/4 holds reserved`,
		"[network.bridge]\nsubnet = \"255.255.255.0/24\"": `network.bridge.subnet = "255.255.255.0/24": 240.0.0.0/4 holds`,

		"[firecracker]\njial = false":                               `unknown key "firecracker.jial"`,
		"[firecracker]\njail = \"no\"":                              "firecracker.jail",
		"[firecracker]\nbinary = \"bin/firecracker\"":               `firecracker.binary = "bin/firecracker": it must be an absolute path, or the name of a program in PATH`,
		"[firecracker]\njailer = \"./jailer\"":                      "firecracker.jailer",
		"[firecracker]\nfirst_uid = 0":                              "firecracker.first_uid = 0: it must be from 1000 to 4294967293",
		"[firecracker]\nfirst_uid = -1":                             "firecracker.first_uid",
		"[firecracker]\nuids = 0":                                   "firecracker.uids = 0: it must be from 1 to",
		"[firecracker]\nfirst_uid = 4294960000":                     "firecracker.uids = 10000: it must be from 1 to 7294",
		"[firecracker]\nfirst_uid = 60000":                          "firecracker.first_uid = 60000, firecracker.uids = 10000: user 65534",
		"[firecracker]\nrelease_url = \"\"":                         "firecracker.release_url",
		"[firecracker]\nrelease_url = \"ftp://h/{version}\"":        "firecracker.release_url",
		"[firecracker]\nrelease_url = \"https:///{version}\"":       "firecracker.release_url",
		"[firecracker]\nrelease_url = \"https://h/latest\"":         "{version}",
		"[firecracker]\nrelease_url = \"https://h/{version}/{os}\"": "{os}",
		"[firecracker]\nrelease_url = \"https://h:x/{version}\"":    "firecracker.release_url",
	} {
		_, err := load(t, content)
		if err != nil && !strings.Contains(err.Error(), "config.toml") {
			t.Errorf("%q: error %v does not name the file", content, err)
		}
		if err == nil || !strings.Contains(err.Error(), want) || vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("%q: error %v, want one with %q", content, err, want)
		}
		if strings.Contains(content, "mem") && strings.Contains(want, "unknown") && !strings.Contains(vm.HintOf(err), `"vm.memory"`) {
			t.Errorf("%q: hint %q does not name vm.memory", content, vm.HintOf(err))
		}
	}
}

// TestBoundsAreInclusive: what is refused begins right beside what is taken; the defaults are taken too.
func TestBoundsAreInclusive(t *testing.T) {
	for _, content := range []string{
		"", "[vm]\nvcpu = 32", "[vm]\nmemory = \"96M\"", "[vm]\nmemory = \"8T\"", "[vm]\ndisk_size = \"16M\"", "[vm]\ndisk_size = \"16T\"",
		"[firecracker]\nfirst_uid = 1000\nuids = 1", "[firecracker]\nfirst_uid = 4294967293\nuids = 1", "[firecracker]\nfirst_uid = 65536",
		"[firecracker]\nbinary = \"firecracker-1.12\"\njailer = \"/opt/jailer\"\njail = false\nrelease_url = \"http://h:8/a/{version}-{arch}.tgz?x=y\"",
		"[network.bridge]\nsubnet = \"223.255.255.0/24\"", "[network.bridge]\nsubnet = \"1.0.0.0/8\"", "[network.bridge]\nsubnet = \"169.253.0.0/16\"",
		"[vm]\nvmm = \"qemu\"\ndisk = \"copy\"\nnetwork = \"none\"",
	} {
		if _, err := load(t, content); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// TestJailsAreTheDefault: one who writes nothing, or something else, has them.
func TestJailsAreTheDefault(t *testing.T) {
	for content, want := range map[string]bool{"": true, "[firecracker]\nuids = 5": true, "[firecracker]\njail = false": false} {
		c, err := load(t, content)
		if err != nil || c.Firecracker.Jail != want {
			t.Errorf("%q: %+v, %v", content, c.Firecracker, err)
		}
	}
}

func TestReleaseOf(t *testing.T) {
	got := Default().Firecracker.Release("1.12.1")
	if want := "https://github.com/firecracker-microvm/firecracker/releases/download/v1.12.1/firecracker-v1.12.1-x86_64.tgz"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestKnownKeysAreTheStructs(t *testing.T) {
	var have []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := prefix + f.Tag.Get("toml")
			if f.Type.Kind() == reflect.Struct {
				walk(key+".", f.Type)
				continue
			}
			have = append(have, key)
		}
	}
	walk("", reflect.TypeOf(Config{}))
	if !slices.Equal(have, known) {
		t.Errorf("known keys %v, the struct has %v", known, have)
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{"512": 512 << 20, "512M": 512 << 20, "2g": 2 << 30, "1GiB": 1 << 30, "64k": 64 << 10} {
		if got, err := size(in); err != nil || got != want {
			t.Errorf("size(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "-1", "1X", "99999999999999999999", "9999999999999"} {
		if got, err := size(in); err == nil {
			t.Errorf("size(%q) = %d, want an error", in, got)
		}
	}
}
