package nft

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/testhost"
)

var update = flag.Bool("update", false, "write the golden files")

func example() Table {
	return Table{
		Bridge:  "banger0",
		Subnet:  netip.MustParsePrefix("172.30.0.0/16"),
		Gateway: netip.MustParseAddr("172.30.0.1"),
		Guests: []Guest{
			{Tap: "bt0123456789ab", MAC: "f6:7f:24:61:75:6c", Addr: netip.MustParseAddr("172.30.0.2")},
			{Tap: "bt00000000000b", MAC: "02:00:00:00:00:0b", Addr: netip.MustParseAddr("172.30.0.3")},
		},
		Forwarding: []string{"wlan0", "eth0"},
	}
}

func examples() map[string]Table {
	allowed := example()
	allowed.Peers, allowed.Host, allowed.Metadata, allowed.Forwarding = true, true, true, nil
	empty := example()
	empty.Guests, empty.Forwarding = nil, nil
	shut := empty
	shut.Shut = []string{"bt00000000000d", "bt00000000000c"}
	return map[string]Table{"guests": example(), "allowed": allowed, "empty": empty, "shut": shut}
}

func TestRender(t *testing.T) {
	for name, table := range examples() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".nft")
			got := Render(table)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (-update writes it):\n%s", file, got)
			}
			slices.Reverse(table.Guests)
			slices.Reverse(table.Shut)
			slices.Reverse(table.Forwarding)
			if Render(table) != got {
				t.Error("another order gives another text")
			}
			if again := Render(table, "inet", "bridge"); again != "delete table inet banger0\ndelete table bridge banger0\n"+got {
				t.Errorf("in the place of what is there:\n%s", again)
			}
		})
	}
}

func TestWays(t *testing.T) {
	rules := func(comments ...string) (all []rule) {
		for i, c := range comments {
			all = append(all, rule{handle: uint64(10 + i), comment: c})
		}
		return all
	}
	const to, from = "banger to banger0", "banger from banger0"
	insert := func(chain string) string {
		return "insert rule ip filter " + chain + " oifname \"banger0\" counter accept comment \"" + to + "\"\n" +
			"insert rule ip filter " + chain + " iifname \"banger0\" counter accept comment \"" + from + "\"\n"
	}
	for _, c := range []struct {
		name   string
		chains map[string][]rule
		wanted bool
		want   string
	}{
		{"no table", nil, true, ""},
		{"no table, to go", nil, false, ""},
		{"iptables", map[string][]rule{"FORWARD": rules("x", "banger to banger00")}, true, insert("FORWARD")},
		{"there", map[string][]rule{"FORWARD": rules(from, "x", to)}, true, ""},
		{"one is missing", map[string][]rule{"FORWARD": rules(to)}, true, "insert rule ip filter FORWARD iifname \"banger0\" counter accept comment \"" + from + "\"\n"},
		{"twice", map[string][]rule{"FORWARD": rules(to, from, to)}, true, "delete rule ip filter FORWARD handle 12\n"},
		{"Docker came", map[string][]rule{"FORWARD": rules(to), "DOCKER-USER": rules(from)}, true,
			"insert rule ip filter DOCKER-USER oifname \"banger0\" counter accept comment \"" + to + "\"\ndelete rule ip filter FORWARD handle 10\n"},
		{"to go", map[string][]rule{"FORWARD": rules(to), "DOCKER-USER": rules("x", from), "INPUT": rules(from)}, false,
			"delete rule ip filter FORWARD handle 10\ndelete rule ip filter DOCKER-USER handle 11\ndelete rule ip filter INPUT handle 10\n"},
		{"a firewall for the host", map[string][]rule{"INPUT": rules(to)}, true,
			"insert rule ip filter INPUT iifname \"banger0\" counter accept comment \"" + from + "\"\n"},
	} {
		var got strings.Builder
		for _, w := range ways("banger0") {
			got.WriteString(w.change(c.chains, c.wanted))
		}
		if got.String() != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, &got, c.want)
		}
	}
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "--stateless", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func load(t *testing.T, script string) {
	t.Helper()
	if err := run(t.Context(), script); err != nil {
		t.Fatal(err)
	}
}

const docker = `table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}

	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
	}

	chain DOCKER-USER {
		counter return
	}
}
`

// TestKernel loads every branch of the table into a real kernel, and takes it out again.
func TestKernel(t *testing.T) {
	testhost.Need(t, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		load(t, docker)
		before := ruleset(t)
		for name, table := range examples() {
			if err := Check(t.Context(), table); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := ruleset(t); got != before {
				t.Fatalf("a check of %s changed the rules:\n%s", name, got)
			}
			var loaded string
			for range 2 {
				if err := Apply(t.Context(), table); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if again := ruleset(t); loaded == "" {
					loaded = again
				} else if loaded != again {
					t.Errorf("%s, the second time:\n%s", name, again)
				}
			}
			want := slices.Sorted(slices.Values(table.Forwarding))
			got, err := Forwarding(table.Bridge)
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: kept %v (%v), want %v", name, got, err, want)
			}
			for range 2 {
				if err := Remove(t.Context(), table.Bridge); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if got := ruleset(t); got != before {
					t.Errorf("after the removal of %s:\n%s", name, got)
				}
			}
		}
	})
}

// TestOthersChangeRulesMeanwhile: between our look and our load a firewall is loaded anew, or the table removed with the
// bridge's last guest.
func TestOthersChangeRulesMeanwhile(t *testing.T) {
	testhost.Need(t, testhost.NFT)
	nft, err := program()
	if err != nil {
		t.Fatal(err)
	}
	testhost.InNamespace(t, func(t *testing.T) {
		path := os.Getenv("PATH")
		meanwhile := func(name string, do func(context.Context, Table) error) {
			t.Helper()
			dir := t.TempDir()
			script := fmt.Sprintf("#!/bin/sh\n[ -e %[1]s/met ] || { touch %[1]s/met; %[2]s flush ruleset; }\nexec %[2]s \"$@\"\n", dir, nft)
			if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+path)
			if err := do(t.Context(), example()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "met")); err != nil {
				t.Errorf("%s: nobody changed anything", name)
			}
		}
		if err := Apply(t.Context(), example()); err != nil {
			t.Fatal(err)
		}
		want := ruleset(t)
		meanwhile("apply", Apply)
		if got := ruleset(t); got != want {
			t.Errorf("now:\n%s", got)
		}
		meanwhile("check", Check)
		if err := Apply(t.Context(), example()); err != nil {
			t.Fatal(err)
		}
		meanwhile("remove", func(ctx context.Context, of Table) error { return Remove(ctx, of.Bridge) })
		if got := ruleset(t); got != "" {
			t.Errorf("after the removal:\n%s", got)
		}
	})
}

// TestForeign holds that a table of the same name that is not ours is named and left alone.
func TestForeign(t *testing.T) {
	testhost.Need(t, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		load(t, "table bridge banger0 {\n\tchain mine {\n\t}\n}\n")
		before := ruleset(t)
		if err := Apply(t.Context(), example()); err == nil || !strings.Contains(err.Error(), "table bridge banger0") {
			t.Errorf("apply: %v", err)
		}
		if err := Remove(t.Context(), "banger0"); err != nil {
			t.Errorf("remove: %v", err)
		}
		if got := ruleset(t); got != before {
			t.Errorf("now:\n%s", got)
		}
	})
}

// TestIptablesReadsOurRules: Docker runs iptables, which refuses a whole table when it cannot say a rule in its words.
func TestIptablesReadsOurRules(t *testing.T) {
	testhost.Need(t, testhost.NFT)
	iptables, err := exec.LookPath("iptables-nft")
	if err != nil {
		t.Skip("iptables-nft is missing")
	}
	testhost.InNamespace(t, func(t *testing.T) {
		iptables := func(args ...string) string {
			out, err := exec.Command(iptables, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("iptables %v: %v\n%s", args, err, out)
			}
			return string(out)
		}
		iptables("-P", "FORWARD", "DROP")
		iptables("-N", "DOCKER-USER")
		iptables("-A", "DOCKER-USER", "-j", "RETURN")
		iptables("-I", "FORWARD", "-j", "DOCKER-USER")
		before := iptables("-S")
		if err := Apply(t.Context(), example()); err != nil {
			t.Fatal(err)
		}
		if got := iptables("-S"); !strings.Contains(got, `-A DOCKER-USER -i banger0 -m comment --comment "banger from banger0" -j ACCEPT`) {
			t.Errorf("iptables says:\n%s", got)
		}
		if err := Remove(t.Context(), "banger0"); err != nil {
			t.Fatal(err)
		}
		if got := iptables("-S"); got != before {
			t.Errorf("left:\n%s", got)
		}
	})
}

// FuzzLook: whatever the kernel or somebody's user data hold, reading them ends, and gives no more than was there.
func FuzzLook(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 'a', 'b', 0, 0, 12, 0, 6, 128, 0, 7, 'b', 'a', 'n', 'g'})
	f.Add([]byte{0, 7, 'b', 'a', 'n', 'g', 'e', 'r', 0})
	f.Add([]byte{3, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, a := range attributes(b) {
			total += 4 + len(a.value)
		}
		if total > len(b) || len(comment(b)) > len(b) {
			t.Errorf("%d bytes of attributes and a comment of %d out of %d", total, len(comment(b)), len(b))
		}
	})
}

func TestComment(t *testing.T) {
	for want, userdata := range map[string]string{
		"banger": "\x00\x07banger\x00",
		"behind": "\x01\x02xx\x00\x07behind\x00",
		"":       "\x00\x09banger\x00", // cut off
	} {
		if got := comment([]byte(userdata)); got != want {
			t.Errorf("comment of %q: %q, want %q", userdata, got, want)
		}
	}
}
