package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// portsHelp is what is to be known of published ports.
const portsHelp = `A port of a guest is published as Docker does it: [[IP:]PORT:]GUEST_PORT[/PROTOCOL].

  8080:80               the guest's port 80 at 127.0.0.1:8080 of this host
  0.0.0.0:8080:80       the same at all addresses of IPv4: others on the network reach it
  [::1]:8080:80         at an address of IPv6
  127.0.0.1:53:53/udp   UDP
  80                    at a port that the system chooses, and that stays the VM's

Without an IP it is 127.0.0.1: only this host reaches it. It works on every network, with a server on any of the guest's addresses,
its loopback too, to which connections seem to come from the guest itself. The daemon carries them: while none runs the ports
are closed, and the next one opens them again.`

func newPorts(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ports [flags] NAME",
		Short: "Show and change which ports of a VM are published",
		Long: `Show what listens in a VM's guest, and which of its ports are published on this host. A guest needs no ss for it: banger's agent in
it asks the kernel. Subcommands publish more, and fewer.

` + portsHelp,
		Example: `  banger vm run -d --name web -p 8080:80
  banger vm ports web
  banger vm ports add web 127.0.0.1:8443:443 53/udp
  banger vm ports rm web 443`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.RunE = a.listPorts(cmd)
	cmd.AddCommand(newPortsList(a), newPortsAdd(a), newPortsRemove(a))
	return cmd
}

// newPortsList is ports itself, where fingers expect it beside add and remove.
func newPortsList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list [flags] NAME",
		Aliases:           []string{"ls"},
		Short:             "Show what listens in a VM, and what of it is published",
		Long:              "Show what listens in a VM's guest, and which of its ports are published on this host, as 'banger vm ports NAME' does.",
		Example:           "  banger vm ports list web\n  banger vm ports ls --json web",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.RunE = a.listPorts(cmd)
	return cmd
}

// listPorts gives cmd its flag, and returns what it does.
func (a *app) listPorts(cmd *cobra.Command) func(*cobra.Command, []string) error {
	asJSON := jsonFlag(cmd)
	return func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			p, err := c.Ports(ctx, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(a.out, p)
			}
			if p.Error != "" {
				fmt.Fprintf(a.err, "banger: what listens in VM %s cannot be told: %s\n", args[0], clean(p.Error))
			}
			return portTable(time.Now(), p).write(a.out)
		})
	}
}

func newPortsAdd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [flags] NAME PORT...",
		Short: "Publish ports of a VM",
		Long: `Publish ports of a VM on this host, and print where. A VM that runs is reached there at once, one that is stopped when it runs.
All are published, or where one is refused none.

` + portsHelp,
		Example:           "  banger vm ports add web 8080:80\n  banger vm ports add web 0.0.0.0:53:53/udp 80",
		Args:              oneOrMore("NAME", "PORT"),
		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		add, err := parsePorts(args[1:])
		if err != nil {
			return err
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			before, err := c.VM(ctx, args[0])
			if err != nil {
				return err
			}
			r, err := c.ChangePorts(ctx, args[0], api.PortsRequest{Add: add})
			if err != nil {
				return err
			}
			for _, p := range r.Spec.Ports {
				if !slices.Contains(before.Spec.Ports, p) {
					fmt.Fprintln(a.out, p)
				}
			}
			return nil
		})
	}
	return cmd
}

func newPortsRemove(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove [flags] NAME PORT...",
		Aliases: []string{"rm"},
		Short:   "Publish ports of a VM no longer",
		Long: `Publish ports of a VM no longer. Connections that came by them are broken off.

A PORT is written as for 'banger vm ports add'; what it leaves out may be anything, but for the protocol: 80 is the guest's port 80
of TCP wherever it is published. All are removed, or where one is not published none.`,
		Example:           "  banger vm ports rm web 80\n  banger vm ports rm web 127.0.0.1:8080:80 53/udp",
		Args:              oneOrMore("NAME", "PORT"),
		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, word := range args[1:] {
			if _, err := vm.MatchPorts(nil, word); err != nil {
				return err
			}
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			_, err := c.ChangePorts(ctx, args[0], api.PortsRequest{Remove: args[1:]})
			return err
		})
	}
	return cmd
}

// parsePorts reads words as vm.ParsePort does, and refuses those that cannot be published together.
func parsePorts(words []string) (ports []vm.Port, err error) {
	for _, word := range words {
		p, err := vm.ParsePort(word)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, vm.ValidatePorts(ports)
}

// portTable joins what listens in a guest and what of it is published: a line for each listener, as often as it is
// published, and for what is published with nobody listening.
func portTable(now time.Time, all api.VMPorts) *table {
	type line struct {
		port              int
		protocol          string
		address, process  string
		published, status string
	}
	var lines []line
	heard := map[int]bool{} // of all.Published
	for _, l := range all.Listeners {
		at := line{port: l.Port, protocol: l.Protocol, address: l.Address, process: "-"}
		if l.PID > 0 {
			at.process = fmt.Sprintf("%s (%d)", l.Process, l.PID)
		}
		alone := true
		for i, p := range all.Published {
			if p.GuestPort == l.Port && p.Protocol == l.Protocol {
				heard[i], alone = true, false
				at.published, at.status = p.Host(), portStatus(now, p)
				lines = append(lines, at)
			}
		}
		if alone {
			lines = append(lines, at)
		}
	}
	for i, p := range all.Published {
		if !heard[i] {
			lines = append(lines, line{p.GuestPort, p.Protocol, "-", "-", p.Host(), portStatus(now, p)})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol))
	})
	t := &table{}
	t.row("PORT", "LISTENS AT", "PROCESS", "PUBLISHED AT", "STATUS")
	for _, l := range lines {
		t.row(strconv.Itoa(l.port)+"/"+l.protocol, l.address, l.process, orDash(l.published), l.status)
	}
	return t
}

// portStatus is how a published port is, in a few words.
func portStatus(now time.Time, p api.PortStatus) string {
	switch {
	case p.State == api.PortFailed && p.RetryAt.After(now):
		return fmt.Sprintf("failed: %s; tried again in %s", p.Error, span(p.RetryAt.Sub(now).Round(time.Second)))
	case p.State == api.PortFailed:
		return "failed: " + p.Error
	case p.Connections == 1:
		return p.State + ", 1 connection"
	case p.Connections > 1:
		return fmt.Sprintf("%s, %d connections", p.State, p.Connections)
	}
	return p.State
}

// portLine is the same with the port itself.
func portLine(now time.Time, p api.PortStatus) string {
	return fmt.Sprintf("%s -> %d/%s  %s", p.Host(), p.GuestPort, p.Protocol, portStatus(now, p))
}
