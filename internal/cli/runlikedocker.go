package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// checkVolume refuses a command that is a volume of Docker's: its -v is --verbose here, and the volume would be the command,
// found missing when the VM is there. Behind -- a command is what it is.
func (a *app) checkVolume(cmd *cobra.Command, argv []string) error {
	if len(argv) == 0 || cmd.ArgsLenAtDash() == 0 || !strings.Contains(argv[0], ":/") {
		return nil
	}
	if word := argv[0]; a.verbose || strings.HasPrefix(word, "/") || strings.HasPrefix(word, ".") {
		return vm.Errorf(vm.CodeInvalid, "%s looks like a volume, and a VM has none: -v is --verbose", quoteAll(argv[:1])).
			WithHint("start the VM with 'banger vm run -d', then copy files into it with 'banger vm cp SRC NAME:DST'")
	}
	return nil
}

// checkImage refuses a command that is the name of an image: a VM of another one would be made, and the command not found in it.
func (r run) checkImage(ctx context.Context, c *client.Client) error {
	if !r.maybeImage {
		return nil
	}
	word := r.exec.Argv[0]
	if word != vm.DefaultImage { // that is one, built or not
		names, err := imageLibrary.list(ctx, c)
		if err != nil || !slices.Contains(names, word) {
			return nil // an error is met again where it matters
		}
	}
	command := "COMMAND"
	if len(r.exec.Argv) > 1 {
		command = quoteAll(r.exec.Argv[1:])
	}
	return vm.Errorf(vm.CodeInvalid, "%s is the name of an image, and stands where the command does", word).
		WithHint("banger vm run --image %s -- %s; a command of that name stands behind --", word, command)
}
