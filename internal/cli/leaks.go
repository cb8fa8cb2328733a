package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// leakFlags are doctor's about what banger has on the host.
type leakFlags struct {
	leaks, fix, yes, json bool
	discard               []string // ids of VMs
}

// check refuses flags that contradict each other.
func (f leakFlags) check(cmd *cobra.Command) error {
	if f.yes && !f.fix {
		return usage(cmd, "--yes goes with --fix")
	}
	if len(f.discard) > 0 && !f.fix {
		return usage(cmd, "--discard goes with --fix")
	}
	for _, id := range f.discard {
		if _, err := vm.ParseID(id); err != nil {
			return usage(cmd, "--discard takes the id of a VM that doctor --leaks tells of, twelve hex digits: %q is none", id)
		}
	}
	return nil
}

// known refuses to discard what is no VM's whose record was lost, before anything is removed.
func (f leakFlags) known(objects []api.HostObject) error {
	for _, id := range f.discard {
		if !slices.ContainsFunc(objects, func(o api.HostObject) bool { return isOrphan(o) && string(o.VM) == id }) {
			return vm.Errorf(vm.CodeNotFound, "discard VM %s: nothing without a record has this id", id).
				WithHint("banger doctor --leaks shows what there is; a VM that has a record goes by banger vm delete")
		}
	}
	return nil
}

func (f leakFlags) discards(o api.HostObject) bool { return slices.Contains(f.discard, string(o.VM)) }

// leaks lists what banger has on the host, and with fix removes what belongs to nobody.
func (a *app) leaks(ctx context.Context, c *client.Client, f leakFlags) error {
	objects, err := c.Objects(ctx)
	if err != nil {
		return err
	}
	if f.fix {
		return a.fix(ctx, c, objects, f)
	}
	if f.json {
		err = printJSON(a.out, objects)
	} else {
		err = a.printObjects(objects)
	}
	if err == nil && count(objects, isOrphan) > 0 {
		return exit(1)
	}
	return err
}

func (a *app) printObjects(objects []api.HostObject) error {
	if len(objects) == 0 {
		_, err := fmt.Fprintln(a.out, "banger has nothing on this host")
		return err
	}
	t := &table{}
	t.row("KIND", "NAME", "OWNER", "WHY")
	for _, o := range objects {
		t.row(o.Kind, title(o), owner(o), why(o))
	}
	if err := t.write(a.out); err != nil {
		return err
	}
	if count(objects, removable) > 0 {
		fmt.Fprintf(a.err, "banger: %s; 'banger doctor --leaks --fix' removes what can be\n", plural(count(objects, isOrphan), "orphan"))
	}
	return nil
}

// fix prints the plan, asks, and has the daemon remove what was in it.
func (a *app) fix(ctx context.Context, c *client.Client, objects []api.HostObject, f leakFlags) error {
	if err := f.known(objects); err != nil {
		return err
	}
	var request api.FixRequest
	for _, id := range f.discard {
		request.Discard = append(request.Discard, vm.ID(id))
	}
	for _, o := range objects {
		if f.discards(o) {
			o.Kept = ""
		}
		switch {
		case removable(o):
			request.Objects = append(request.Objects, api.ObjectName{Kind: o.Kind, Name: o.Name})
			fmt.Fprintf(a.err, "remove %s %s%s: %s\n", o.Kind, title(o), after(", with ", clean(o.Holds)), why(o))
		case isOrphan(o):
			fmt.Fprintf(a.err, "keep %s %s: %s\n", o.Kind, title(o), why(o))
		}
	}
	kept := count(objects, isOrphan) - len(request.Objects)
	done := []api.HostObject{}
	if len(request.Objects) > 0 {
		if !f.yes {
			ok, err := a.confirm(ctx, "Remove "+plural(len(request.Objects), "orphan")+"?")
			if err != nil {
				return err
			}
			if !ok {
				fmt.Fprintln(a.err, "banger: nothing was removed")
				return exit(1)
			}
		}
		var err error
		if done, err = c.Fix(ctx, request); err != nil {
			return err
		}
	}
	if f.json {
		if err := printJSON(a.out, done); err != nil {
			return err
		}
	}
	return a.tell(done, kept, f.json)
}

// tell says what became of the orphans.
func (a *app) tell(done []api.HostObject, kept int, quiet bool) error {
	failed := false
	for _, o := range done {
		switch {
		case o.Removed:
			if !quiet {
				if _, err := fmt.Fprintf(a.out, "removed %s %s\n", o.Kind, title(o)); err != nil {
					return err
				}
			}
		case o.Error != "":
			failed = true
			a.report(vm.Errorf(vm.CodeInternal, "remove %s %s: %s", o.Kind, title(o), o.Error))
		default:
			kept++
			fmt.Fprintf(a.err, "banger: kept %s %s: %s\n", o.Kind, title(o), clean(o.Kept))
		}
	}
	switch {
	case failed:
		return exit(exitFailed)
	case kept > 0:
		return exit(1)
	case len(done) == 0 && !quiet:
		fmt.Fprintln(a.err, "banger: there are no orphans")
	}
	return nil
}

// confirm asks on a terminal. Elsewhere nobody can answer, and what nobody agreed to is not done.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	if !term.IsTerminal(int(a.in.Fd())) {
		return false, vm.Errorf(vm.CodeInvalid, "refuse to remove anything unasked: stdin is no terminal").WithHint("add --yes if the plan above is what you want")
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answered := make(chan string, 1)
	go func() { // a read of a terminal cannot be cancelled; the process ends soon after
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil && err != io.EOF {
			line = ""
		}
		answered <- line
	}()
	select {
	case line := <-answered:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return true, nil
		}
		return false, nil
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return false, context.Cause(ctx)
	}
}

func isOrphan(o api.HostObject) bool  { return o.Status == api.ObjectOrphan }
func removable(o api.HostObject) bool { return isOrphan(o) && o.Kept == "" }

func count(objects []api.HostObject, which func(api.HostObject) bool) (n int) {
	for _, o := range objects {
		if which(o) {
			n++
		}
	}
	return n
}

func title(o api.HostObject) string {
	if o.More == "" {
		return clean(o.Name)
	}
	return clean(o.Name + " (" + o.More + ")")
}

func owner(o api.HostObject) string {
	if isOrphan(o) {
		return "ORPHAN"
	}
	return orDash(o.Owner)
}

func why(o api.HostObject) string { return clean(o.Why + after("; kept: ", o.Kept)) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
