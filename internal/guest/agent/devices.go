package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceNode is one line of a modules.devname: a node whose opening makes the kernel load its module.
type deviceNode struct {
	name         string // below /dev
	kind         uint32 // unix.S_IFCHR or S_IFBLK
	major, minor uint32
}

// everybodys are the nodes that an ordinary user may open, as udev has it (50-udev-default.rules).
var everybodys = map[string]bool{"fuse": true, "net/tun": true}

// makeDeviceNodes makes, below dev, the nodes that modules (a /lib/modules/RELEASE) promises, and gives everybody what is
// everybody's, be it built in. It is udev's work, where there is no udev. It does all it can and joins the errors.
func makeDeviceNodes(dev, modules string) error {
	list, err := os.ReadFile(filepath.Join(modules, "modules.devname"))
	var errs []error
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without modules has no list
		errs = append(errs, fmt.Errorf("make the nodes of modules: %w", err))
	}
	for _, n := range parseDevnames(string(list)) {
		if err := n.make(dev); err != nil {
			errs = append(errs, fmt.Errorf("make node %s: %w", n.name, err))
		}
	}
	for name := range everybodys {
		if err := os.Chmod(filepath.Join(dev, name), 0o666); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// make makes n, unless it is there: its module may be built in, or loaded.
func (n deviceNode) make(dev string) error {
	file := filepath.Join(dev, n.name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	err := unix.Mknod(file, n.kind|0o600, int(unix.Mkdev(n.major, n.minor)))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// parseDevnames reads the format of depmod(8): "MODULE NAME cMAJOR:MINOR", comments with "#". Lines that are otherwise,
// and names that lead out of /dev, are passed over.
func parseDevnames(list string) []deviceNode {
	var nodes []deviceNode
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) != 3 || strings.HasPrefix(f[0], "#") || f[1] != strings.TrimPrefix(path.Clean("/"+f[1]), "/") || strings.Contains(f[1], "\x00") {
			continue
		}
		n := deviceNode{name: f[1]}
		number, block := strings.CutPrefix(f[2], "b")
		if n.kind = unix.S_IFBLK; !block {
			var char bool
			if number, char = strings.CutPrefix(f[2], "c"); !char {
				continue
			}
			n.kind = unix.S_IFCHR
		}
		major, minor, _ := strings.Cut(number, ":")
		a, err1 := strconv.ParseUint(major, 10, 12) // the kernel's twelve and twenty bits
		i, err2 := strconv.ParseUint(minor, 10, 20)
		if err1 != nil || err2 != nil {
			continue
		}
		n.major, n.minor = uint32(a), uint32(i)
		nodes = append(nodes, n)
	}
	return nodes
}
