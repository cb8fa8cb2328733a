package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newImageImport(a *app) *cobra.Command {
	var request api.ImageImportRequest
	cmd := &cobra.Command{
		Use:   "import [flags] FILE|-",
		Short: "Make an image of a tar, an ext4 file system or a qcow2 disk",
		Long: `Make an image of a file, and print its name. The file's content says what it is, whatever it is called:

  a tar of a root file system, as docker export writes it; compressed by gzip, xz, zstd or bzip2, too
  an ext4 file system (ext2 and ext3 as well)
  a qcow2 disk that holds one, without partitions

With - it is read from standard input, which meanwhile is kept in a nameless file below $TMPDIR (else /var/tmp); --name has to
be given then.

The image is given the room that others have, and runs its own init system where there is /sbin/init. Where it fails, or is
interrupted, nothing is left.`,
		Example: "  docker export $(docker create alpine) > alpine.tar\n  banger image import alpine.tar\n  docker export $(docker create alpine) | banger image import --name alpine -\n  banger image import --name lab ./disk.qcow2",
		Args:    exactly("FILE"),
	}
	cmd.Flags().StringVar(&request.Name, "name", "", "`NAME` of the image (default: after the file)")
	cmd.Flags().BoolVarP(&request.Force, "force", "f", false, "take the name from another image that has it")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "-" {
			if request.Name == "" {
				return vm.Errorf(vm.CodeInvalid, "import image from standard input: it has no name").WithHint("give it one: --name NAME")
			}
			path, done, err := a.spooled(cmd.Context())
			if err != nil {
				return vm.Errorf(vm.CodeOf(err), "import image %s from standard input: %w", request.Name, err).WithHint("%s", vm.HintOf(err))
			}
			defer done()
			request.Source, request.Title = path, "standard input"
		} else if err := absolute(&request.Source, args[0]); err != nil {
			return err
		}
		return a.printMade(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) (string, error) {
			image, err := c.ImportImage(ctx, request, p.event)
			if err != nil {
				return "", err
			}
			return image.Name, nil
		})
	}
	return cmd
}

// absolute sets path to that of a file that exists, as the daemon, which works in another directory, finds it.
func absolute(path *string, file string) error {
	abs, err := filepath.Abs(file)
	if err == nil {
		_, err = os.Stat(abs)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return vm.Errorf(vm.CodeNotFound, "import image from %s: no such file", file)
	}
	if err != nil {
		return vm.Errorf(vm.CodeInvalid, "import image from %s: %w", file, err)
	}
	*path = abs
	return nil
}
