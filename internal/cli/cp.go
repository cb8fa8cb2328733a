package cli

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/tarcopy"
	"banger/internal/vm"
)

// place is one end of a copy: a path in a VM, on this machine (vm empty), or a tar stream ("-").
type place struct{ vm, path string }

func (p place) stream() bool { return p.vm == "" && p.path == "-" }

func (p place) String() string {
	if p.vm == "" {
		return p.path
	}
	return p.vm + ":" + p.path
}

// parsePlace reads NAME:PATH, PATH or "-". What begins with "/" or "." is on this machine, whatever colons follow.
// A path in a VM that does not begin with "/" is taken from the root directory, as Docker does.
func parsePlace(s string) place {
	name, file, ok := strings.Cut(s, ":")
	if !ok || strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") || strings.Contains(name, "/") || name == "" {
		return place{path: s}
	}
	if !strings.HasPrefix(file, "/") {
		file = "/" + file
	}
	return place{name, file}
}

func newCp(a *app) *cobra.Command {
	var o tarcopy.Options
	cmd := &cobra.Command{
		Use:   "cp [flags] SRC DST",
		Short: "Copy files between this machine and a VM",
		Long: `Copy files and directories between this machine and a running VM. One of SRC and DST is NAME:PATH, the other a path
here, or - for a tar stream on stdin or stdout. A VM that is starting is waited for.

A PATH in the VM that does not begin with / is taken from its root directory, not from /root: 'web:' is /.

A directory is copied with all below it: into DST when that is a directory, else as DST. SRC/. copies what is in it.
What comes into the VM belongs to root there, what comes out belongs to you, unless -a keeps the owners' numbers.
A file is replaced only when its copy is complete. Where a file has nothing but zeros, its copy has a hole.`,
		Example: `  banger vm cp ./dir web:/srv
  banger vm cp web:/etc/hosts .
  banger vm cp web:/etc - | tar t
  tar c . | banger vm cp - web:/srv`,
		Args:              exactly("SRC", "DST"),
		ValidArgsFunction: a.completePlaces,
	}
	cmd.Flags().BoolVarP(&o.Owner, "archive", "a", false, "keep numeric owners, set-id bits and extended attributes")
	cmd.Flags().BoolVarP(&o.Follow, "follow-link", "L", false, "copy what SRC points to when it is a symbolic link")
	cmd.Flags().BoolP("recursive", "r", false, "") // directories are always whole; fingers used to cp and scp write -r
	_ = cmd.Flags().MarkHidden("recursive")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		src, dst := parsePlace(args[0]), parsePlace(args[1])
		switch {
		case args[0] == "" || args[1] == "":
			return usage(cmd, "a path is empty")
		case src.vm == "" && dst.vm == "":
			return usage(cmd, "neither %s nor %s is in a VM: write NAME:PATH", src, dst)
		case src.vm != "" && dst.vm != "":
			return usage(cmd, "copying from VM to VM is not possible: pipe '%s cp %s -' into '%s cp - %s'", cmd.Parent().CommandPath(), src, cmd.Parent().CommandPath(), dst)
		}
		if src.stream() {
			if err := a.noTerminal(); err != nil {
				return err
			}
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			o.Warn = p.leftOut
			cp := copying{app: a, c: c, p: p, o: o}
			var err error
			if src.vm != "" {
				err = cp.copyOut(ctx, src, dst)
			} else {
				err = cp.copyIn(ctx, src, dst)
			}
			p.finish(err == nil)
			if err == nil || ctx.Err() != nil {
				return err
			}
			return copyError(src, dst, err)
		})
	}
	return cmd
}

// leftOut warns of what is not copied. The name may be the guest's.
func (p *progress) leftOut(path string) {
	p.say("banger: " + clean(path) + " is left out: it is neither file, directory nor link")
}

// copyError says what was being copied, and what to do next where the error does not.
func copyError(src, dst place, err error) error {
	if errors.Is(err, client.ErrNoDaemon) {
		return err
	}
	code, hint := vm.CodeInternal, vm.HintOf(err)
	var known *vm.Error
	if errors.As(err, &known) {
		code = known.Code
	} else if errors.Is(err, fs.ErrNotExist) {
		code = vm.CodeNotFound
	}
	return vm.Errorf(code, "copy %s to %s: %w", src, dst, err).WithHint("%s", hint)
}
