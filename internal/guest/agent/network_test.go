package agent

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/testhost"
)

// The interface gets its address and route, keeps them the second time, and gives them up for others.
func TestNetworkApply(t *testing.T) {
	testhost.Need(t, testhost.IP)
	runRole(t, "network", unix.CLONE_NEWNET)
}

func actAsNetworked() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	nl, err := openRtnetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	const index = 7
	if err := nl.request(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE, bridgeBody(index), nil); err != nil {
		return fmt.Errorf("make a bridge: %w: %w", err, errors.ErrUnsupported)
	}
	first := guest.Network{Address: "10.9.0.2/24", Gateway: "10.9.0.1", MTU: 1400, MAC: "52:54:00:00:00:07"}
	forked := guest.Network{Address: "10.9.0.3/24", Gateway: "10.9.0.254", MTU: 1400, MAC: "52:54:00:00:00:08"}
	for _, n := range []guest.Network{first, first, forked, forked} {
		want, err := parseNetwork(&n)
		if err != nil {
			return err
		}
		if err := nl.apply(index, want); err != nil {
			return fmt.Errorf("apply %+v: %w", n, err)
		}
		out, err := exec.Command("sh", "-c", "ip -o addr; ip route; ip link").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		text := string(out)
		for _, must := range []string{n.Address, "default via " + n.Gateway, "mtu 1400", n.MAC, "lo: <LOOPBACK,UP"} {
			if !strings.Contains(text, must) {
				return fmt.Errorf("%+v: no %q in\n%s", n, must, text)
			}
		}
		if strings.Count(text, "scope global") != 1 || strings.Count(text, "default via") != 1 {
			return fmt.Errorf("%+v: more than that:\n%s", n, text)
		}
	}
	return nil
}

// bridgeBody asks for a new bridge, which without ports is as good as any interface.
func bridgeBody(index uint32) []byte {
	body := make([]byte, unix.SizeofIfInfomsg)
	copy(body[4:], u32(index))
	body = attribute(body, unix.IFLA_IFNAME, []byte("b0\x00"))
	return attribute(body, unix.IFLA_LINKINFO, attribute(nil, unix.IFLA_INFO_KIND, []byte("bridge")))
}
