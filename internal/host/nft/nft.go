package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

var (
	// ErrForeign is wrapped by errors about a table that has a bridge's name and is not ours.
	ErrForeign = errors.New("somebody else's")

	// ErrDenied is wrapped by errors of a process that may not look at the host's rules.
	ErrDenied = errors.New("not permitted")

	// ErrMissing is wrapped by errors of a host that has no nftables, and so none of our tables.
	ErrMissing = errors.New("nftables is missing")
)

// program is nft. It lies where an ordinary user's PATH does not lead.
func program() (string, error) {
	path, err := exec.LookPath("nft")
	for _, p := range []string{"/usr/sbin/nft", "/sbin/nft"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(p)
	}
	if err != nil {
		return "", fmt.Errorf("%w: there is no program nft (package nftables)", ErrMissing)
	}
	return path, nil
}

// Installed says why no rules can be loaded: the program is missing.
func Installed() error {
	_, err := program()
	return err
}

// run gives nft a script. An error has its own words.
func run(ctx context.Context, script string, args ...string) error {
	path, err := program()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, append(args, "-f", "-")...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(script)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		if strings.Contains(said, "cache initialization failed") || strings.Contains(said, "Unable to initialize Netlink socket") {
			return fmt.Errorf("%w in this kernel: nft: %s", ErrMissing, said)
		}
		return fmt.Errorf("nft: %w: %s", err, said)
	}
	return nil
}

// Check says why the kernel would not take the table; nothing is changed.
func Check(ctx context.Context, t Table) error {
	return give(func() (string, error) {
		there, err := families(t.Bridge)
		return Render(t, there...), err
	}, func(script string) error { return run(ctx, script, "--check") })
}

// Apply puts the table in the place of the one there is, and has other people's rules let it have its say, in one
// transaction. No connection breaks: what is translated stays so.
func Apply(ctx context.Context, t Table) error {
	return give(func() (string, error) { return replacement(t) }, func(script string) error {
		return act.Do(ctx, "rules", func() error { return run(ctx, script) })
	})
}

// give has nft take a script that follows from what is there; nothing is taken where it is empty. When it fails, both are
// done once more: somebody may have changed the rules meanwhile, such as a firewall that was loaded anew, or a table that
// went with the bridge's last guest.
func give(script func() (string, error), take func(string) error) error {
	for again := false; ; again = true {
		s, err := script()
		if err != nil || s == "" {
			return err
		}
		if err = take(s); err == nil || again {
			return err
		}
	}
}

// replacement is the script that Apply gives to nft, by what is there now.
func replacement(t Table) (string, error) {
	there, err := families(t.Bridge)
	if err != nil {
		return "", err
	}
	way, err := makeWay(t.Bridge, true)
	return Render(t, there...) + way, err
}

// Remove takes the table away, and our rules out of other people's. Removing what is absent is success, and so is
// leaving alone what is not ours.
func Remove(ctx context.Context, bridge string) error {
	return give(func() (string, error) { return removal(bridge) }, func(script string) error {
		return act.Do(ctx, "rules.remove", func() error { return run(ctx, script) })
	})
}

// removal is the script that Remove gives to nft, by what is there now.
func removal(bridge string) (string, error) {
	in, err := families(bridge)
	if err != nil && !errors.Is(err, ErrForeign) {
		return "", err
	}
	var b strings.Builder
	for _, family := range in {
		fmt.Fprintf(&b, "delete table %s %s\n", family, bridge)
	}
	way, err := makeWay(bridge, false)
	return b.String() + way, err
}

// Forwarding is what the bridge's table keeps in Table.Forwarding; nothing where there is none of ours.
func Forwarding(bridge string) ([]string, error) {
	in, err := families(bridge)
	if err != nil || len(in) == 0 || in[0] != "inet" {
		return nil, err
	}
	return interfaces(bridge, "forwarding")
}

// Tables lists all tables by their names, whoever's they are: those of our bridges are among them.
func Tables() ([]string, error) {
	all, err := tables(unix.NFPROTO_INET)
	var names []string
	for _, t := range all {
		names = append(names, t.name)
	}
	return names, err
}

// Ours says whether a bridge has a table that carries our mark. One that is somebody else's is none, and no error.
func Ours(bridge string) (bool, error) {
	in, err := families(bridge)
	if errors.Is(err, ErrForeign) {
		err = nil
	}
	return len(in) > 0, err
}

// families returns in which of them the bridge has a table of ours, inet first. A table that is not ours is an error.
func families(bridge string) (ours []string, err error) {
	all, err := tables(unix.NFPROTO_UNSPEC)
	if err != nil {
		return nil, err
	}
	for _, family := range []string{"inet", "bridge"} {
		for _, t := range all {
			switch {
			case t.family != family || t.name != bridge:
			case t.comment == mark:
				ours = append(ours, family)
			default:
				err = errors.Join(err, fmt.Errorf("table %s %s of nftables is %w", family, bridge, ErrForeign))
			}
		}
	}
	return ours, err
}
