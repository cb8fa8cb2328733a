package dns

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
)

const (
	port     = 53
	maxConf  = 64 << 10
	maxHosts = 8 // servers; glibc asks three
)

// resolvConf is the host's resolv.conf(5). It is looked at before each query and read when it is another, as glibc
// does: a watch would have to follow the links that it is reached by, and a file that is mounted over it.
type resolvConf struct {
	path string

	mu    sync.Mutex
	read  os.FileInfo // as it was when it was read; nil = never
	known []netip.AddrPort
}

// servers are those that the host asks, in its order.
func (c *resolvConf) servers() ([]netip.AddrPort, error) {
	info, err := os.Stat(c.path)
	if os.IsNotExist(err) {
		return parseConf(""), nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the host's resolvers: %w", err)
	}
	c.mu.Lock()
	read, known := c.read, c.known
	c.mu.Unlock()
	if read != nil && os.SameFile(read, info) && read.ModTime().Equal(info.ModTime()) && read.Size() == info.Size() {
		return known, nil
	}
	f, err := os.Open(c.path)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxConf))
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers: %w", err)
	}
	known = parseConf(string(text))
	c.mu.Lock()
	c.read, c.known = info, known
	c.mu.Unlock()
	return known, nil
}

// parseConf reads the servers, each an IP or IP:port. Where there is none it is the host itself (resolv.conf(5)).
func parseConf(text string) (servers []netip.AddrPort) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		server, err := netip.ParseAddrPort(f[1])
		if err != nil {
			a, err := netip.ParseAddr(f[1])
			if err != nil {
				continue
			}
			server = netip.AddrPortFrom(a, port)
		}
		if len(servers) < maxHosts {
			servers = append(servers, server)
		}
	}
	if servers == nil {
		servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return servers
}
