package nft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"banger/internal/act"
)

var (
	// ErrForeign is wrapped by errors about a table that has a bridge's name and is not ours.
	ErrForeign = errors.New("somebody else's")

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

// run gives nft a script, or arguments, and returns what it prints. An error has its own words.
func run(ctx context.Context, script string, args ...string) ([]byte, error) {
	path, err := program()
	if err != nil {
		return nil, err
	}
	if script != "" {
		args = append(args, "-f", "-")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(script)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		if strings.Contains(said, "cache initialization failed") || strings.Contains(said, "Unable to initialize Netlink socket") {
			return nil, fmt.Errorf("%w in this kernel: nft: %s", ErrMissing, said)
		}
		return nil, fmt.Errorf("nft: %w: %s", err, said)
	}
	return out, nil
}

// Check says why the kernel would not take the table; nothing is changed.
func Check(ctx context.Context, t Table) error {
	_, err := run(ctx, Render(t), "--check")
	return err
}

// Apply puts the table in the place of the one there is, and has other people's rules let it have its say, in one
// transaction. No connection breaks: what is translated stays so.
func Apply(ctx context.Context, t Table) error {
	if _, err := find(ctx, t.Bridge); err != nil {
		return err
	}
	way, err := makeWay(ctx, t.Bridge, true)
	if err != nil {
		return err
	}
	return act.Do(ctx, "rules", func() error {
		_, err := run(ctx, Render(t)+way)
		return err
	})
}

// Remove takes the table away, and our rules out of other people's. Removing what is absent is success, and so is
// leaving alone what is not ours.
func Remove(ctx context.Context, bridge string) error {
	var b strings.Builder
	families, err := find(ctx, bridge)
	if err != nil && !errors.Is(err, ErrForeign) {
		return err
	}
	for _, family := range families {
		fmt.Fprintf(&b, "delete table %s %s\n", family, bridge)
	}
	way, err := makeWay(ctx, bridge, false)
	if err != nil {
		return err
	}
	b.WriteString(way)
	if b.Len() == 0 {
		return nil
	}
	return act.Do(ctx, "rules.remove", func() error {
		_, err := run(ctx, b.String())
		return err
	})
}

// Forwarding is what the bridge's table keeps in Table.Forwarding; nothing where there is none of ours.
func Forwarding(ctx context.Context, bridge string) ([]string, error) {
	families, err := find(ctx, bridge)
	if err != nil || len(families) == 0 || families[0] != "inet" {
		return nil, err
	}
	out, err := run(ctx, "", "-j", "list", "set", "inet", bridge, "forwarding")
	if err != nil {
		return nil, err
	}
	objects, err := parse(out)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range objects {
		if o.Set != nil {
			names = append(names, o.Set.Elem...)
		}
	}
	return names, nil
}

// Tables lists all tables by their names, whoever's they are: those of our bridges are among them.
func Tables(ctx context.Context) ([]string, error) {
	objects, err := list(ctx, "tables", "inet")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range objects {
		if o.Table != nil {
			names = append(names, o.Table.Name)
		}
	}
	return names, nil
}

// find returns in which families the bridge has a table of ours, inet first. A table that is not ours is an error.
func find(ctx context.Context, bridge string) (families []string, err error) {
	objects, err := list(ctx, "tables")
	if err != nil {
		return nil, err
	}
	for _, family := range []string{"inet", "bridge"} {
		for _, o := range objects {
			if o.Table == nil || o.Table.Family != family || o.Table.Name != bridge {
				continue
			}
			ours, ferr := marked(ctx, family, bridge)
			switch {
			case ferr != nil:
				err = errors.Join(err, ferr)
			case ours:
				families = append(families, family)
			default:
				err = errors.Join(err, fmt.Errorf("table %s %s of nftables is %w", family, bridge, ErrForeign))
			}
		}
	}
	return families, err
}

// marked looks for the table's comment, which nft leaves out of its JSON.
func marked(ctx context.Context, family, name string) (bool, error) {
	out, err := run(ctx, "", "--terse", "list", "table", family, name)
	if err != nil {
		return false, err
	}
	lines := strings.SplitN(string(out), "\n", 3)
	return len(lines) > 1 && strings.TrimSpace(lines[1]) == `comment "`+mark+`"`, nil
}

// object is one element of nft's JSON (libnftables-json(5)), with what is read of it.
type object struct {
	Table *struct{ Family, Name string }
	Chain *struct{ Family, Table, Name string }
	Set   *struct{ Elem []string }
	Rule  *struct {
		Chain, Comment string
		Handle         int
	}
}

func list(ctx context.Context, what ...string) ([]object, error) {
	out, err := run(ctx, "", append([]string{"-j", "list"}, what...)...)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

func parse(out []byte) ([]object, error) {
	var answer struct{ Nftables []object }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("read nft's answer: %w", err)
	}
	return answer.Nftables, nil
}
