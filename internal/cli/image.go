package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// newImage groups the commands about images.
func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Build, import, list, tag and delete images, the root file systems of VMs",
		Long:    "Build, import, list, tag and delete images, the root file systems of VMs.",
		Example: "  banger image build debian-bookworm\n  banger image list",
		Args:    group,
		RunE:    help,
	}
	cmd.AddCommand(newImageBuild(a), newImageDelete(a), newImageImport(a), newImageList(a), newImagePrune(a), newImageShow(a), newImageTag(a))
	return cmd
}

func newImageBuild(a *app) *cobra.Command {
	var request api.BuildRequest
	cmd := &cobra.Command{
		Use:   "build [flags] [RECIPE]",
		Short: "Build an image from Debian packages",
		Long: `Build an image from Debian packages, and print its name. RECIPE is ` + vm.DefaultImage + ` (the default); the image has its name unless
--name gives another.

Packages come from the mirrors this host is configured with, unless --mirror names another.

--script FILE is a program that is run as root in a VM of these packages, with a network as VMs have it; the image is what it leaves
on the VM's system disk. That is not /root, which is another disk. A script that fails, is interrupted, or writes more than this host's
disk takes leaves no image; in any case the VM is gone afterwards. Where an image of just these packages is there, it is taken for the
beginning.`,
		Example: "  banger image build debian-bookworm\n  banger image build --name dev --packages git,make debian-bookworm\n" +
			"  banger image build --name app --packages python3 --script ./provision.sh",
		Args: atMost("RECIPE"),
	}
	cmd.Flags().StringVar(&request.Name, "name", "", "`NAME` of the image (default: the recipe's)")
	cmd.Flags().StringSliceVarP(&request.Packages, "packages", "p", nil, "add Debian `PACKAGES`, separated by commas; can be given again")
	cmd.Flags().StringVar(&request.Mirror, "mirror", "", "`URL` of the Debian mirror to use")
	script := cmd.Flags().String("script", "", "run `FILE` in a VM of the packages; what it leaves is the image")
	cmd.Flags().BoolVar(&request.Force, "force", false, "build it even when it is there")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request.Recipe = vm.DefaultImage
		if len(args) > 0 {
			request.Recipe = args[0]
		}
		if cmd.Flags().Changed("script") {
			var err error
			if request.Script, err = readScript(*script); err != nil {
				return err
			}
			if request.Name == "" {
				return usage(cmd, "--script makes another image than the recipe's: it needs --name")
			}
		}
		return a.printMade(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) (name string, err error) {
			err = a.orRemoved(ctx, c, p, func(report vm.Report) error { // the script's VM
				image, err := c.Build(ctx, request, report)
				if err == nil {
					name = image.Name
				}
				return err
			})
			return name, err
		})
	}
	return cmd
}

// readScript is the content of a file; an empty one is a mistake.
func readScript(path string) (string, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", vm.Errorf(vm.CodeNotFound, "read script %s: no such file", path)
	case err != nil:
		return "", vm.Errorf(vm.CodeInvalid, "read script %s: %w", path, err)
	case strings.TrimSpace(string(b)) == "":
		return "", vm.Errorf(vm.CodeInvalid, "read script %s: it is empty", path)
	case !utf8.Valid(b):
		return "", vm.Errorf(vm.CodeInvalid, "read script %s: it is no text", path).WithHint("a script can fetch programs, or build them")
	}
	if first, _, _ := strings.Cut(string(b), "\n"); strings.HasSuffix(first, "\r") {
		return "", vm.Errorf(vm.CodeInvalid, "read script %s: its lines end as Windows ends them, which makes other words of the last ones", path).WithHint("tr -d '\\r' <FILE >NEW")
	}
	return string(b), nil
}

func newImageList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List images",
		Long: `List images, with the size they take on this host's disk.

--format writes each by a Go template, with the fields Name, Digest, Size (bytes), CreatedAt, Init, Env and Source; all else of it is
as with 'banger vm list'.`,
		Example: "  banger image list\n  banger image list -q\n  banger image list --format '{{.Name}}\\t{{.Size}}'\n  banger image list --json",
		Args:    atMost(),
	}
	how := listFlags(cmd, "image")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			images, err := c.Images(ctx)
			if err != nil {
				return err
			}
			if how.json {
				return printJSON(a.out, images)
			}
			return writeList(a.out, how, images, func(i vm.Image) (string, vm.Image) { return "image " + i.Name, i }, func() *table {
				t := &table{}
				t.row("NAME", "DIGEST", "SIZE", "CREATED", "SOURCE")
				for _, i := range images {
					t.row(i.Name, shortDigest(i.Digest), formatSize(i.Size), age(time.Now(), i.CreatedAt), i.Source)
				}
				return t
			})
		})
	}
	return cmd
}
