package cli

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/api/client"
)

// newProxy is ssh's ProxyCommand; hidden, but stable: people put it into their ssh configuration.
func newProxy(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "proxy NAME",
		Short:   "Join stdin and stdout to a VM's ssh server",
		Long:    "Join stdin and stdout to a VM's ssh server: the ProxyCommand of an ssh client. NAME may end in .vm.",
		Example: "  ssh -o ProxyCommand='banger vm proxy web' root@web.vm",
		Hidden:  true,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// ssh shares its stderr: it shows the wait for a VM that is starting. A file gets only what ssh itself says.
			quiet := !term.IsTerminal(int(a.err.Fd()))
			name := vmOfHost(args[0])
			return a.with(cmd.Context(), quiet, func(ctx context.Context, c *client.Client, p *progress) error {
				arrived := p.follow(ctx, c, name)
				conn, err := c.SSH(ctx, name)
				arrived(err == nil)
				p.finish(err == nil)
				if err != nil {
					return err
				}
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				if err := a.join(conn); ctx.Err() == nil {
					return err
				}
				return context.Cause(ctx)
			})
		},
	}
}

// join copies stdin to conn and conn to stdout until the other end closes: ssh needs no more from us then.
func (a *app) join(conn net.Conn) error {
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, a.in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	if _, err := io.Copy(a.out, conn); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
