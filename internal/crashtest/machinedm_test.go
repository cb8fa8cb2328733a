package crashtest

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

func (k *machine) makeDM(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.dms[name]; there {
		return unix.EBUSY
	}
	k.dms[name] = dmDevice{}
	return nil
}

func (k *machine) loadDM(name string, on ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.dms[name]; !there {
		return unix.ENXIO
	}
	for _, l := range on {
		if _, ok := k.loops[l]; !ok {
			return unix.EINVAL
		}
	}
	k.dms[name] = dmDevice{on: on}
	return nil
}

func (k *machine) resumeDM(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, there := k.dms[name]
	if !there {
		return unix.ENXIO
	}
	d.resumed, d.suspended = d.on != nil || d.wiped, false
	k.dms[name] = d
	return nil
}

// changeDM makes another of a device that is there.
func (k *machine) changeDM(name string, change func(*dmDevice)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, there := k.dms[name]
	if !there {
		return unix.ENXIO
	}
	change(&d)
	k.dms[name] = d
	return nil
}

func (k *machine) findDM(name string) (d dmDevice, there bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, there = k.dms[name]
	return d, there
}

func (k *machine) removeDM(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, there := k.dms[name]
	switch {
	case !there:
		return unix.ENXIO
	case k.used(func(c vmm.Config) bool { return filepath.Base(c.Root.Path) == name }):
		return unix.EBUSY
	}
	delete(k.dms, name)
	return nil
}
