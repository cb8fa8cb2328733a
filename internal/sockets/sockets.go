// Package sockets reads from /proc which sockets wait for peers, and whose they are. Guest agent and daemon both ask: one what
// listens in the guest, the other who has a port of the host. It changes nothing and decides nothing.
package sockets

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Socket is one that is bound to a port and waits for whoever comes: TCP that listens, UDP that is not connected.
type Socket struct {
	Protocol string         // "tcp" or "udp"
	Addr     netip.AddrPort // 0.0.0.0 or :: where it is bound to all addresses; :: may take IPv4 as well
	UID      int            // whose it is
	Inode    uint64
}

// Of the kernel's include/net/tcp_states.h. UDP borrows the word: a socket without a peer is "closed".
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// List reads the sockets below proc, usually "/proc", of its network namespace. IPv6 may be absent.
func List(proc string) ([]Socket, error) {
	var all []Socket
	for _, t := range []struct{ file, protocol, state string }{
		{"tcp", "tcp", tcpListen}, {"tcp6", "tcp", tcpListen}, {"udp", "udp", udpOpen}, {"udp6", "udp", udpOpen},
	} {
		b, err := os.ReadFile(path.Join(proc, "net", t.file))
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(t.file, "6") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		all = append(all, parse(string(b), t.protocol, t.state)...)
	}
	return all, nil
}

// parse reads a table of proc_net_tcp(5): a line of titles, then "sl local remote st tx:rx tr:when retrnsmt uid timeout
// inode …" each. Lines that are not so are left out.
func parse(text, protocol, state string) (all []Socket) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != state {
			continue
		}
		addr, ok := parseAddr(f[1])
		uid, uerr := strconv.Atoi(f[7])
		inode, ierr := strconv.ParseUint(f[9], 10, 64)
		if ok && uerr == nil && ierr == nil {
			all = append(all, Socket{protocol, addr, uid, inode})
		}
	}
	return all
}

// parseAddr reads "0100007F:1F90": the address as words of the processor's own order, the port as a number.
func parseAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}

// Process is one that holds a socket.
type Process struct {
	PID  int
	Name string // as the kernel has it: at most 15 bytes, of whatever kind
}

// Owners finds who holds the sockets of these inodes, as far as we may see: an ordinary user sees only its own processes. Of
// several that share one it is that with the lowest pid.
func Owners(proc string, inodes map[uint64]bool) (map[uint64]Process, error) {
	owners := map[uint64]Process{}
	if len(inodes) == 0 {
		return owners, nil
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("find whose sockets they are: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := path.Join(proc, e.Name())
		fds, err := os.ReadDir(path.Join(dir, "fd"))
		if err != nil {
			continue // not ours to see, or it has ended
		}
		for _, fd := range fds {
			link, err := os.Readlink(path.Join(dir, "fd", fd.Name()))
			inode, ok := inodeOf(link)
			if err != nil || !ok || !inodes[inode] {
				continue
			}
			if had, known := owners[inode]; !known || pid < had.PID {
				comm, _ := os.ReadFile(path.Join(dir, "comm"))
				owners[inode] = Process{pid, strings.TrimSuffix(string(comm), "\n")}
			}
		}
	}
	return owners, nil
}

// inodeOf reads "socket:[123]".
func inodeOf(link string) (uint64, bool) {
	s, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
	return n, err == nil
}
