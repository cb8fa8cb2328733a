package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// newKernel groups the commands about kernels.
func newKernel(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "kernel",
		Short:   "Import, list, tag and delete guest kernels",
		Long:    "Import, list, tag and delete guest kernels, each with its modules.",
		Example: "  banger kernel import\n  banger kernel list",
		Args:    group,
		RunE:    help,
	}
	cmd.AddCommand(newKernelImport(a), newKernelDelete(a), newKernelList(a), newKernelPrune(a), newKernelShow(a), newKernelTag(a))
	return cmd
}

func newKernelImport(a *app) *cobra.Command {
	var request api.ImportRequest
	cmd := &cobra.Command{
		Use:   "import [flags] [SOURCE]",
		Short: "Import a kernel with its modules",
		Long: `Import a kernel with its modules, and print its name. SOURCE is

  FILE.deb             a Debian kernel package
  FILE                 a vmlinux or bzImage that needs no modules
  apt:PACKAGE          a package fetched by apt, without installing it
  installed[:RELEASE]  a kernel this host has installed, by default the running one

Without SOURCE it is the default kernel, ` + vm.DefaultKernel + `.`,
		Example: "  banger kernel import\n  banger kernel import --name my-kernel ./linux-image.deb\n  banger kernel import installed",
		Args:    atMost("SOURCE"),
	}
	cmd.Flags().StringVar(&request.Name, "name", "", "`NAME` of the kernel (default: after its source)")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			source, err := kernelSource(args[0])
			if err != nil {
				return err
			}
			request.Source = source
		}
		return a.printMade(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) (string, error) {
			kernel, err := c.Import(ctx, request, p.event)
			if err != nil {
				return "", err
			}
			return kernel.Name, nil
		})
	}
	return cmd
}

// kernelSource makes a file's path absolute: the daemon works in another directory. A file that is not there may be a
// mistyped word.
func kernelSource(source string) (string, error) {
	if strings.HasPrefix(source, "apt:") || source == "installed" || strings.HasPrefix(source, "installed:") {
		return source, nil
	}
	path, err := filepath.Abs(source)
	if err == nil {
		_, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", vm.Errorf(vm.CodeNotFound, "import kernel %s: no such file", source).
			WithHint("a source is a .deb, vmlinux or bzImage file, apt:PACKAGE or installed[:RELEASE]")
	}
	if err != nil {
		return "", vm.Errorf(vm.CodeInvalid, "import kernel %s: %w", source, err)
	}
	return path, nil
}

func newKernelList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List kernels",
		Long: `List kernels, with the size they take on this host's disk.

--format writes each by a Go template, with the fields Name, Digest, Release, Version, Size (bytes), CreatedAt and Source; all else of
it is as with 'banger vm list'.`,
		Example: "  banger kernel list\n  banger kernel list -q\n  banger kernel list --format '{{.Name}}\\t{{.Release}}'\n  banger kernel list --json",
		Args:    atMost(),
	}
	how := listFlags(cmd, "kernel")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			kernels, err := c.Kernels(ctx)
			if err != nil {
				return err
			}
			if how.json {
				return printJSON(a.out, kernels)
			}
			return writeList(a.out, how, kernels, func(k vm.Kernel) (string, vm.Kernel) { return "kernel " + k.Name, k }, func() *table {
				t := &table{}
				t.row("NAME", "RELEASE", "DIGEST", "SIZE", "CREATED", "SOURCE")
				for _, k := range kernels {
					t.row(k.Name, k.Release, shortDigest(k.Digest), formatSize(k.Size), age(time.Now(), k.CreatedAt), k.Source)
				}
				return t
			})
		})
	}
	return cmd
}
