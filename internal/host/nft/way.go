package nft

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Docker sets the policy of iptables' FORWARD chain to drop, and other firewalls do the like to INPUT too. What they do
// not know they drop, whatever our table says. So each bridge has rules at the head of these chains. They let pass
// everything from and to the bridge: what may pass is our own table's to say.

// way is a rule that other people's chains are to have at their head.
type way struct {
	chains  []string // of the table "ip filter": the first that there is has the rule
	comment string   // by which it is ours
	text    string
}

// ways are a bridge's. Docker looks at DOCKER-USER first, and leaves it to others.
func ways(bridge string) []way {
	forward := []string{"DOCKER-USER", "FORWARD"}
	return []way{
		{forward, mark + " to " + bridge, fmt.Sprintf("oifname %q counter accept", bridge)},
		{forward, mark + " from " + bridge, fmt.Sprintf("iifname %q counter accept", bridge)},
		{[]string{"INPUT"}, mark + " from " + bridge, fmt.Sprintf("iifname %q counter accept", bridge)},
	}
}

// makeWay writes what is to be done to the table "ip filter" so that our rules are there, or gone; nothing when all is
// well, or there is no such table.
func makeWay(bridge string, wanted bool) (script string, err error) {
	names, err := filterChains()
	if err != nil {
		return "", err
	}
	chains := map[string][]rule{}
	for _, name := range names {
		if slices.Contains([]string{"DOCKER-USER", "FORWARD", "INPUT"}, name) {
			if chains[name], err = filterRules(name); err != nil {
				return "", err
			}
		}
	}
	var b strings.Builder
	for _, w := range ways(bridge) {
		b.WriteString(w.change(chains, wanted))
	}
	return b.String(), nil
}

// change decides from the rules of the chains that there are.
func (w way) change(chains map[string][]rule, wanted bool) string {
	var b strings.Builder
	for _, chain := range w.chains {
		rules, ok := chains[chain]
		if !ok {
			continue
		}
		there := false
		for _, r := range rules {
			switch {
			case r.comment != w.comment:
			case wanted && !there:
				there = true
			default:
				fmt.Fprintf(&b, "delete rule ip filter %s handle %d\n", chain, r.handle)
			}
		}
		if wanted && !there {
			fmt.Fprintf(&b, "insert rule ip filter %s %s comment %q\n", chain, w.text, w.comment)
		}
		wanted = false // one chain is enough
	}
	return b.String()
}

// Legacy says whether filter rules are also in the iptables of old (iptables-legacy), which nft does not see and which
// may drop what our table lets pass.
func Legacy() bool {
	b, err := os.ReadFile("/proc/net/ip_tables_names")
	return err == nil && slices.Contains(strings.Fields(string(b)), "filter")
}
