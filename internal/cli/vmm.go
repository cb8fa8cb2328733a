package cli

import (
	"context"
	"errors"
	"fmt"
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

// installable is the one VMM that banger installs; others come with the distribution.
const installable = "firecracker"

// newVMM groups the commands about the programs that run VMs.
func newVMM(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vmm",
		Short: "Install, list and delete the programs that run VMs",
		Long: `Install, list and delete the programs that run VMs: Firecracker, with its jailer. QEMU comes with the distribution.

The next VM that runs under Firecracker is started with the program that config.toml names ([firecracker] binary), else with the
newest version that was installed here and is supported, else with what PATH has. VMs that run keep what they have.`,
		Example: "  banger vmm install firecracker\n  banger vmm list\n  banger vmm show firecracker",
		Args:    group,
		RunE:    help,
	}
	cmd.AddCommand(newVMMInstall(a), newVMMList(a), newVMMShow(a), newVMMDelete(a))
	return cmd
}

// completeVMM completes the one argument of install and show.
func completeVMM(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []cobra.Completion{installable}, cobra.ShellCompDirectiveNoFileComp
}

func newVMMInstall(a *app) *cobra.Command {
	var request api.InstallRequest
	cmd := &cobra.Command{
		Use:   "install [flags] firecracker",
		Short: "Install Firecracker and its jailer",
		Long: `Install Firecracker and its jailer, and print the program's path. Without flags it is the version that this banger is tested
with, from the project's releases (config.toml: [firecracker] release_url). What is installed already is not got again.

--from names another source:

  URL    of an archive, through the proxy that HTTPS_PROXY names where bangerd was started
  FILE   a release's .tgz, a .zip or .whl that has both programs under any path, or a program with the jailer beside it
  DIR    a directory with both programs

Of the versions that this banger is tested with it knows the SHA-256 digests, and takes nothing else. Any other supported version
has to be vouched for: by SHA256SUMS or FILE.sha256.txt beside it, fetched over https or lying on this host, or by --sha256.
What does not match is not installed, and nothing is executed before it matched.`,
		Example: `  banger vmm install firecracker
  banger vmm install --version 1.13.1 firecracker
  banger vmm install --from ./firecracker-v1.12.1-x86_64.tgz firecracker
  banger vmm install --from https://example.com/firecracker.tgz --sha256 0123abcd firecracker`,
		Args:              exactly("firecracker"),
		ValidArgsFunction: completeVMM,
	}
	cmd.Flags().StringVar(&request.Version, "version", "", "`VERSION` to install (default: the one that --from has, else the tested one)")
	cmd.Flags().StringVar(&request.From, "from", "", "`SOURCE`: a URL, a file or a directory (default: the project's releases)")
	cmd.Flags().StringSliceVar(&request.SHA256, "sha256", nil, "SHA-256 in `HEX` of the file or, of a directory, of a program; can be given again")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("from") {
			from, err := vmmSource(request.From)
			if err != nil {
				return err
			}
			request.From = from
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			v, err := c.Install(ctx, args[0], request, p.event)
			if err != nil {
				return err
			}
			p.finish(true)
			if !*quiet {
				for _, line := range remarks(*v) {
					fmt.Fprintln(a.err, "banger: "+clean(line))
				}
			}
			_, err = fmt.Fprintln(a.out, v.Path)
			return err
		})
	}
	return cmd
}

// remarks are what a person should know of an install that went well.
func remarks(v api.VMM) (lines []string) {
	if v.Checked != api.CheckedPinned {
		lines = append(lines, fmt.Sprintf("this banger does not know the digests of %s %s: it was checked %s", v.Name, v.Version, checkedBy[v.Checked]))
	}
	if !v.InUse {
		lines = append(lines, fmt.Sprintf("%s %s is installed, but another program is used: see 'banger vmm list'", v.Name, v.Version))
	}
	return lines
}

// vmmSource makes a path absolute: the daemon works in another directory.
func vmmSource(source string) (string, error) {
	if strings.Contains(source, "://") {
		return source, nil
	}
	if source == "" {
		return "", vm.Errorf(vm.CodeInvalid, "--from is empty").WithHint("it is a URL, a file or a directory")
	}
	path, err := filepath.Abs(source)
	if err == nil {
		_, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", vm.Errorf(vm.CodeNotFound, "install from %s: no such file or directory", source).WithHint("a source is a URL, a file or a directory")
	}
	if err != nil {
		return "", vm.Errorf(vm.CodeInvalid, "install from %s: %w", source, err)
	}
	return path, nil
}

func newVMMList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the programs that run VMs",
		Long: `List Firecracker as it is configured, installed by banger and found in PATH, in the order of preference. USED marks the one that
the next VM is started with.`,
		Example: "  banger vmm list\n  banger vmm list --json",
		Args:    atMost(),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			vmms, err := c.VMMs(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(a.out, vmms)
			}
			t := &table{}
			t.row("NAME", "VERSION", "USED", "ORIGIN", "DIGEST", "PATH")
			for _, v := range vmms {
				used := "-"
				if v.InUse {
					used = "yes"
				}
				t.row(v.Name, orDash(v.Version), used, v.Origin, orDash(shortDigest(v.Digest)), v.Path)
			}
			if err := t.write(a.out); err != nil {
				return err
			}
			for _, v := range vmms {
				if v.Error != "" {
					fmt.Fprintf(a.err, "banger: %s: %s\n", clean(v.Path), clean(v.Error))
				}
			}
			return nil
		})
	}
	return cmd
}

func newVMMShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [flags] firecracker",
		Short: "Show a VMM: its program, and whether VMs can be run with it",
		Long: `Show which program is used, where it comes from, and whether VMs can be run with it: the first time after a boot of this host a
small guest is booted to find out.`,
		Example:           "  banger vmm show firecracker\n  banger vmm show firecracker --json",
		Args:              exactly("firecracker"),
		ValidArgsFunction: completeVMM,
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			v, err := c.VMM(ctx, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(a.out, v)
			}
			return vmmTable(time.Now(), v).write(a.out)
		})
	}
	return cmd
}

// vmmTable shows a VMM to people, as "key:  value" lines. What is empty is left out.
func vmmTable(now time.Time, v api.VMMView) *table {
	t := &table{}
	line := func(key, value string) {
		if value != "" {
			t.row(key+":", value)
		}
	}
	usable := "no"
	if v.Usable {
		usable = "yes" + after(", ", v.Accel)
	}
	line("Name", v.Name)
	line("Usable", usable)
	line("Why", v.Why)
	line("Hint", v.Hint)
	line("Version", v.Version)
	line("Supported", v.Supported+"; tested with "+v.Tested)
	line("Program", v.Path)
	line("Problem", v.Error)
	line("Digest", v.Digest)
	line("Jailer", v.Jailer)
	line("Jailer digest", v.JailerDigest)
	line("Origin", v.Origin)
	line("Source", v.Source)
	line("Checked", checkedBy[v.Checked])
	if !v.InstalledAt.IsZero() {
		line("Installed", v.InstalledAt.Local().Format(time.DateTime)+", "+age(now, v.InstalledAt))
	}
	return t
}

// checkedBy tells people what a program was checked against.
var checkedBy = map[string]string{
	api.CheckedPinned: "against the digests that banger knows",
	api.CheckedGiven:  "against a digest that was given",
	api.CheckedSums:   "against the file of digests beside it",
}
