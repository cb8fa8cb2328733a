package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// newKnownHosts is ssh's KnownHostsCommand; hidden, but stable: it stands in ssh configurations.
func newKnownHosts(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "known-hosts HOST",
		Short: "Print a VM's host key as a line of known_hosts",
		Long: `Print a VM's host key as a line of known_hosts: the KnownHostsCommand of an ssh client. HOST is how the line is to call it:
NAME.vm, NAME, or [NAME.vm]:PORT.`,
		Example: "  ssh -o KnownHostsCommand='/usr/bin/banger vm known-hosts %H' -o ProxyCommand='banger vm proxy web' root@web.vm",
		Hidden:  true,
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
				view, err := c.VM(ctx, vmOfHost(args[0]))
				if err != nil {
					return err
				}
				if view.SSH == nil {
					return vm.Errorf(vm.CodeUnavailable, "VM %s has no ssh access", view.Name)
				}
				pinned, err := os.ReadFile(view.SSH.KnownHosts)
				if errors.Is(err, fs.ErrNotExist) {
					return vm.Errorf(vm.CodeNotRunning, "VM %s has no host key yet: it has never been started", view.Name).
						WithHint("start it with 'banger vm start %s'", view.Name)
				}
				if err != nil {
					return vm.Errorf(vm.CodeInternal, "read the host key of VM %s: %w", view.Name, err)
				}
				_, key, ok := strings.Cut(strings.TrimSpace(string(pinned)), " ")
				if !ok {
					return vm.Errorf(vm.CodeCorrupt, "read the host key of VM %s: %s is no known_hosts file", view.Name, view.SSH.KnownHosts).
						WithHint("it is made anew when the VM is started")
				}
				_, err = fmt.Fprintln(a.out, args[0], key)
				return err
			})
		},
	}
}

// vmOfHost is the VM that an ssh client means by a host: NAME.vm, or [NAME.vm]:PORT for another port than 22. Ports mean
// nothing here.
func vmOfHost(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host, _, _ = strings.Cut(inner, "]")
	}
	return strings.TrimSuffix(host, ".vm")
}
