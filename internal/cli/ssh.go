package cli

import (
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/sshconfig"
	"banger/internal/vm"
)

func newSSH(a *app) *cobra.Command {
	var user string
	var flags sshFlags
	cmd := &cobra.Command{
		Use:   "ssh [flags] [USER@]NAME [--] [COMMAND [ARG...]]",
		Short: "Connect to a running VM with the ssh client",
		Long: `Connect to a running VM with this machine's own ssh client: a shell, or a command.

One COMMAND without arguments is a line for the guest's shell, as ssh takes it: 'cd /srv && ls'. With arguments, each of
them arrives in the program as it is, whatever the shell would make of it.

The guest needs no ssh server and no network: the connection goes through the daemon. The VM's host key was made by the
daemon and is checked. Your ssh configuration is read, but your agent and X11 are not forwarded unless -A or -o asks for
it. Flags stand before NAME, which may end in .vm as it does with ssh itself.

For scp, sftp, rsync, git and editors, which run ssh themselves, see 'banger ssh-config'.`,
		Example: `  banger vm ssh web
  banger vm ssh web -- uname -r
  banger vm ssh www-data@web -- id
  banger vm ssh web -- 'cd /srv && ls *.css'
  banger vm ssh -t web -- top
  banger vm ssh -L 8080:localhost:80 web
  banger vm ssh -N -D 1080 web
  banger vm ssh -o LogLevel=DEBUG web`,
		ValidArgsFunction: a.completeHosts,
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVarP(&user, "login", "l", "", "`USER` to log in as (default root)")
	flags.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, argv, err := nameAndCommand(cmd, args)
		if err != nil {
			return err
		}
		if login, host, ok := strings.Cut(name, "@"); ok {
			name = host
			if user == "" { // as with ssh, the flag wins
				user = login
			}
		}
		name = strings.TrimSuffix(name, ".vm")
		binary, err := exec.LookPath("ssh")
		if err != nil {
			return vm.Errorf(vm.CodeMissing, "connect to VM %s: there is no ssh client: %w", name, err).
				WithHint("install openssh-client, or use 'banger vm exec -it %s bash'", name)
		}
		self, err := os.Executable()
		if err != nil {
			return vm.Errorf(vm.CodeInternal, "find this program: %w", err)
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		view, err := c.VM(cmd.Context(), name)
		if err != nil {
			return err
		}
		if err := reachable(view); err != nil {
			return err
		}
		if user == "" {
			user = view.SSH.User
		}
		if home, err := os.UserHomeDir(); err == nil && sshconfig.In(home).Installed() {
			flags.args = append(flags.args, "-o", "KnownHostsCommand=none") // ssh-config's would ask its own daemon; older clients know no such option
		}
		if err := syscall.Exec(binary, sshArgs(view, user, self, flags.args, argv), os.Environ()); err != nil {
			return vm.Errorf(vm.CodeMissing, "run %s: %w", binary, err)
		}
		return nil
	}
	return cmd
}

func reachable(v api.VMView) error {
	if v.State == vm.StatePaused {
		return vm.Errorf(vm.CodeNotRunning, "VM %s is paused", v.Name).WithHint("banger vm resume %s", v.Name)
	}
	if v.State != vm.StateRunning && v.State != vm.StateStarting {
		return vm.Errorf(vm.CodeNotRunning, "VM %s is not running, it is %s", v.Name, v.State).
			WithHint("start it with 'banger vm start %s'", v.Name)
	}
	if v.SSH == nil {
		return vm.Errorf(vm.CodeUnavailable, "VM %s has no ssh access", v.Name)
	}
	return nil
}

// sshArgs is the command line of ssh. The first value of an option counts: the user's flags come before ours, and both
// before the user's configuration. Connection sharing is off: a shared connection could lead to an older VM of the same
// name.
func sshArgs(v api.VMView, user, self string, flags, argv []string) []string {
	proxy := sshconfig.Percent(sshconfig.Quote(self)) + " vm proxy " + string(v.ID)
	args := append([]string{"ssh"}, flags...)
	for _, o := range []string{
		"ProxyCommand=" + proxy,
		"IdentityFile=" + sshconfig.Word(v.SSH.IdentityFile), "IdentitiesOnly=yes", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no",
		"UserKnownHostsFile=" + sshconfig.Word(v.SSH.KnownHosts), "GlobalKnownHostsFile=none", "HostKeyAlias=" + v.SSH.HostKeyAlias,
		"StrictHostKeyChecking=yes", "CheckHostIP=no", "UpdateHostKeys=no",
		"ControlMaster=no", "ControlPath=none", "ForwardAgent=no", "ForwardX11=no",
	} {
		args = append(args, "-o", o)
	}
	args = append(args, "-l", user, "--", v.Name+".vm")
	if len(argv) > 0 {
		args = append(args, commandLine(argv))
	}
	return args
}

// commandLine is what the guest's shell is given. One argument alone is a line for it, as it would be with ssh: quoted, it
// would be a program called "cd /tmp; ls".
func commandLine(argv []string) string {
	if len(argv) == 1 {
		return argv[0]
	}
	return quoteAll(argv)
}

// quoteAll quotes each argument: ssh joins what it is given with spaces, and the guest's shell splits it again.
func quoteAll(argv []string) string {
	words := make([]string, len(argv))
	for i, arg := range argv {
		words[i] = sshconfig.Quote(arg)
	}
	return strings.Join(words, " ")
}
