package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/cli/sshconfig"
	"banger/internal/paths"
	"banger/internal/vm"
)

func newSSHConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh-config [--install | --uninstall]",
		Short: "Let ssh, scp, rsync, git and editors reach VMs as NAME.vm",
		Long: `Print a configuration for this machine's ssh client, by which every VM is a host called NAME.vm: for ssh itself, and for what runs
it, such as scp, sftp, rsync, sshfs, git and the remote modes of editors. The guest needs no ssh server and no network.

--install writes it to ~/.ssh/banger.conf and includes that by one marked block at the top of ~/.ssh/config; nothing else in
there is touched. --uninstall takes both away again. It needs an OpenSSH client of version 8.5 or newer.

A VM's host key was made by the daemon; it is known as long as the VM is there, and nothing is written to your known_hosts. You
are root in the VM unless you say USER@NAME.vm. Your agent and X11 are forwarded only where -A or -X asks for it.

The configuration leads to the daemon of the BANGER_ROOT it was made with, whatever that is when ssh runs.`,
		Example: `  banger ssh-config --install
  ssh web.vm
  scp -r ./src web.vm:/srv
  rsync -a ./src/ web.vm:/srv/src/
  banger ssh-config --uninstall
  banger ssh-config > vms.conf
  ssh -F vms.conf web.vm`,
		Args: atMost(),
	}
	install := cmd.Flags().Bool("install", false, "include it in ~/.ssh/config")
	uninstall := cmd.Flags().Bool("uninstall", false, "remove what --install did")
	exclusive(cmd, "install", "uninstall")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *uninstall {
			return a.uninstallSSHConfig()
		}
		text, err := sshConfigText()
		if err != nil {
			return err
		}
		if *install {
			return a.installSSHConfig(cmd.Context(), text)
		}
		_, err = io.WriteString(a.out, text)
		return err
	}
	return cmd
}

func sshConfigText() (string, error) {
	p, err := daemonPaths()
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", vm.Errorf(vm.CodeInternal, "find this program: %w", err)
	}
	return sshconfig.Host{Banger: self, Env: daemonEnv(p), IdentityFile: p.SSHKey()}.Text()
}

// daemonEnv are the arguments of env(1) that make another program of this one's environment find the same daemon.
func daemonEnv(p paths.Paths) []string {
	if os.Getenv("BANGER_ROOT") != "" {
		return []string{"BANGER_ROOT=" + p.Root}
	}
	words := []string{"-u", "BANGER_ROOT"}
	if os.Geteuid() == 0 {
		return words
	}
	for _, key := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		if dir := os.Getenv(key); filepath.IsAbs(dir) {
			words = append(words, key+"="+dir)
		}
	}
	return words
}

func (a *app) installSSHConfig(ctx context.Context, text string) error {
	place, err := a.sshPlace()
	if err != nil {
		return err
	}
	if err := understood(ctx, text); err != nil {
		return err
	}
	changed, err := place.Install(text)
	if err != nil {
		return err
	}
	said := "ssh knows VMs as NAME.vm now"
	if !changed {
		said = "ssh knows VMs as NAME.vm already"
	}
	fmt.Fprintf(a.err, "banger: %s: %s includes %s\n", said, place.Config(), place.File())
	return nil
}

func (a *app) uninstallSSHConfig() error {
	place, err := a.sshPlace()
	if err != nil {
		return err
	}
	removed, err := place.Uninstall()
	if err != nil {
		return err
	}
	if !removed {
		fmt.Fprintf(a.err, "banger: %s has nothing of banger's\n", place.Config())
		return nil
	}
	fmt.Fprintf(a.err, "banger: removed %s, and what included it from %s\n", place.File(), place.Config())
	return nil
}

// sshPlace finds the user's ssh configuration. ssh itself asks the user database, not HOME, where that is.
func (a *app) sshPlace() (sshconfig.Place, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return sshconfig.Place{}, vm.Errorf(vm.CodeMissing, "find the home directory: %w", err).WithHint("set HOME")
	}
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil && filepath.Clean(u.HomeDir) != filepath.Clean(home) {
		fmt.Fprintf(a.err, "banger: HOME is %s, but ssh reads the configuration in %s, unless it is told another with -F\n", home, u.HomeDir)
	}
	return sshconfig.In(home), nil
}

// understood has the ssh client read a configuration. One with an option that a client does not know, be it for other hosts,
// keeps it from connecting to any.
func understood(ctx context.Context, text string) error {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return vm.Errorf(vm.CodeMissing, "look for the ssh client: %w", err).WithHint("install openssh-client")
	}
	cmd := exec.CommandContext(ctx, ssh, "-G", "-F", "/dev/stdin", "any.vm")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return vm.Errorf(vm.CodeMissing, "try the ssh configuration with %s: %w: %s", ssh, err, out).
			WithHint("it takes OpenSSH 8.5 or newer; 'ssh -V' tells which this is")
	}
	return nil
}
