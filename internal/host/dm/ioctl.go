package dm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/host/blockdev"
	"banger/internal/vm"
)

// The calls are the kernel's include/uapi/linux/dm-ioctl.h, version 4: a header, then what the call returns.

// errNone says that the kernel has no device-mapper, or has not loaded it: then there is no device either.
var errNone = errors.New("no device-mapper")

// errRoot says that this process is an ordinary user's, to whom the kernel refuses all calls: it has made no device either.
var errRoot = errors.New("device-mapper is for root only")

// none says whether it is certain, from the error of a call, that there is no device of ours.
func none(err error) bool { return errors.Is(err, errNone) || errors.Is(err, errRoot) }

func forRoot(err error, euid int) error {
	if euid != 0 && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", errRoot, err)
	}
	return err
}

type control struct{ f *os.File }

func open() (control, error) {
	f, err := os.OpenFile(dir+"/"+unix.DM_CONTROL_NODE, os.O_RDWR, 0)
	if err == nil {
		return control{f}, nil
	}
	if err = forRoot(err, os.Geteuid()); errors.Is(err, errRoot) {
		return control{}, vm.Errorf(vm.CodeMissing, "reach device-mapper: %w", err)
	}
	// A node that is missing in a /dev of its own does not mean that there are no devices.
	misc, merr := os.ReadFile("/proc/misc")
	if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)) && (merr != nil || !strings.Contains(string(misc), "device-mapper")) {
		err = fmt.Errorf("%w: %w", errNone, err)
	}
	return control{}, vm.Errorf(vm.CodeMissing, "reach device-mapper: %w", err).WithHint("as root: modprobe dm-snapshot")
}

func (c control) close() { _ = c.f.Close() }

// request names a device by name or by uuid; by both only where it is to be made.
type request struct {
	name, uuid string
	flags      uint32
	targets    uint32 // how many are in data
	data       []byte
}

// call returns the header and the data of the kernel's answer. ENXIO when there is no such device.
func (c control) call(req uint, r request) (unix.DmIoctl, []byte, error) {
	for size := 16 << 10; ; size *= 2 {
		h := unix.DmIoctl{Version: [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}, Data_size: uint32(size), Data_start: unix.SizeofDmIoctl, Flags: r.flags, Target_count: r.targets}
		if len(r.name) >= len(h.Name) || len(r.uuid) >= len(h.Uuid) {
			return h, nil, unix.ENAMETOOLONG
		}
		copy(h.Name[:], r.name)
		copy(h.Uuid[:], r.uuid)
		buf, err := binary.Append(make([]byte, 0, size), binary.NativeEndian, h)
		if err != nil {
			return h, nil, err
		}
		buf = append(buf, r.data...)[:size]
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, c.f.Fd(), uintptr(req), uintptr(unsafe.Pointer(&buf[0]))); errno == unix.EINTR {
			size /= 2 // again
			continue
		} else if errno != 0 {
			return h, nil, forRoot(errno, os.Geteuid()) // the control's mode may let a group open it
		}
		if _, err := binary.Decode(buf, binary.NativeEndian, &h); err != nil {
			return h, nil, err
		}
		if h.Flags&unix.DM_BUFFER_FULL_FLAG != 0 && size < 16<<20 {
			continue
		}
		if h.Data_size <= h.Data_start { // an answer without data ends before the header's padding
			return h, nil, nil
		}
		if int64(h.Data_size) > int64(len(buf)) {
			return h, nil, fmt.Errorf("answer has %d bytes of %d", h.Data_size, len(buf))
		}
		return h, buf[h.Data_start:h.Data_size], nil
	}
}

// find looks a device up by its mark.
func (c control) find(id vm.ID) (Device, bool, error) {
	h, _, err := c.call(unix.DM_DEV_STATUS, request{uuid: UUID(id)})
	if errors.Is(err, unix.ENXIO) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, fmt.Errorf("look for device-mapper device %s: %w", Name(id), err)
	}
	d := Device{
		ID: id, Name: unix.ByteSliceToString(h.Name[:]), Number: blockdev.Format(h.Dev), Open: int(h.Open_count),
		Path:   node(id, h.Dev),
		Loaded: h.Flags&unix.DM_ACTIVE_PRESENT_FLAG != 0, Suspended: h.Flags&unix.DM_SUSPEND_FLAG != 0,
	}
	if d.Loaded {
		if d.Table, err = c.table(UUID(id), true); errors.Is(err, unix.ENXIO) {
			return Device{}, false, nil // removed between the two calls
		}
	}
	return d, true, err
}

func (c control) uuidOf(name string) (string, error) {
	h, _, err := c.call(unix.DM_DEV_STATUS, request{name: name})
	return unix.ByteSliceToString(h.Uuid[:]), err
}

// table returns the table in use, or else the status of its targets, one line each.
func (c control) table(uuid string, table bool) (string, error) {
	r := request{uuid: uuid}
	if table {
		r.flags = unix.DM_STATUS_TABLE_FLAG
	}
	h, data, err := c.call(unix.DM_TABLE_STATUS, r)
	if err != nil {
		return "", err
	}
	return parseTargets(data, int(h.Target_count))
}

func parseTargets(data []byte, count int) (string, error) {
	var lines []string
	for at := 0; len(lines) < count; {
		var s unix.DmTargetSpec
		if at < 0 || at > len(data) {
			return "", fmt.Errorf("target %d is out of range", len(lines))
		}
		if _, err := binary.Decode(data[at:], binary.NativeEndian, &s); err != nil {
			return "", fmt.Errorf("target %d: %w", len(lines), err)
		}
		words := unix.ByteSliceToString(data[at+unix.SizeofDmTargetSpec:])
		line := fmt.Sprintf("%d %d %s %s", s.Sector_start, s.Length, unix.ByteSliceToString(s.Target_type[:]), words)
		lines = append(lines, strings.TrimSpace(line))
		if next := int(s.Next); next > at { // counted from the first one
			at = next
		} else if len(lines) < count {
			return "", fmt.Errorf("target %d has no successor", len(lines)-1)
		}
	}
	return strings.Join(lines, "\n"), nil
}

// uuids lists the marks of all devices that have one.
func (c control) uuids() ([]string, error) {
	_, data, err := c.call(unix.DM_LIST_DEVICES, request{})
	if err != nil {
		return nil, err
	}
	names, err := parseNames(data)
	if err != nil {
		return nil, err
	}
	var uuids []string
	for _, n := range names {
		uuid, err := c.uuidOf(n)
		if errors.Is(err, unix.ENXIO) {
			continue // removed since the listing
		}
		if err != nil {
			return nil, err
		}
		if uuid != "" {
			uuids = append(uuids, uuid)
		}
	}
	return uuids, nil
}

// parseNames reads a chain of struct dm_name_list: number (8 bytes; 0 in a list of none), distance to the next (4), name.
func parseNames(data []byte) ([]string, error) {
	const head = 12
	var names []string
	for len(data) > 0 { // some kernels leave an empty list out altogether
		if len(data) < head {
			return nil, fmt.Errorf("name %d is cut off", len(names))
		}
		if binary.NativeEndian.Uint64(data) == 0 {
			return names, nil
		}
		names = append(names, unix.ByteSliceToString(data[head:]))
		next := binary.NativeEndian.Uint32(data[8:])
		if next == 0 {
			return names, nil
		}
		if next < head || int64(next) > int64(len(data)) {
			return nil, fmt.Errorf("name %d has no successor", len(names)-1)
		}
		data = data[next:]
	}
	return names, nil
}
