// Package nft is the thin hand on packet rules: it writes all of one bridge's rules as text, and has the nft program
// load them in one transaction. It keeps nothing; the kernel does.
//
// A table is ours by its comment. Of other people's tables it touches one, the "ip filter" that iptables and Docker
// share, and in that only rules that carry our comment.
package nft

import (
	"net/netip"
	"slices"
	"strings"
	"text/template"
)

// Table is all that is asked of packets to and from one bridge. It is loaded as two tables of the bridge's name, since
// what the bridge sees and what the host sees are different families to the kernel.
type Table struct {
	Bridge  string // also the name of the tables
	Subnet  netip.Prefix
	Gateway netip.Addr // the host's address in it
	Guests  []Guest
	Shut    []string // tap devices on the bridge that may send nothing

	Peers    bool // guests reach each other
	Host     bool // guests reach all of the host's services, and not only its resolver
	Metadata bool // guests reach link-local addresses and the metadata services of clouds

	// Forwarding names the interfaces that passed no packets on until we had them do it. They are kept here because
	// the table lasts as long as the setting does: until we take both back, or the host stops.
	Forwarding []string
}

// Guest is what one tap device may send from.
type Guest struct {
	Tap  string
	MAC  string
	Addr netip.Addr
}

// mark is the comment of all that is ours.
const mark = "banger"

// metadata are the addresses at which a cloud tells a machine its secrets: link-local ones everywhere, one of its own
// each Alibaba, Azure and Oracle.
var metadata = []string{"100.100.100.200", "168.63.129.16", "169.254.0.0/16", "192.0.0.192"}

// text is the rule set. Each guest's packets are looked at twice. On the bridge, by the device they come from: no guest
// takes another's address, or speaks anything but IPv4 and ARP. On the host, by what the bridge passes up: a port that
// nobody told us of lets none out either.
//
// An interface that passed nothing on until we had it do so (@forwarding) does it for guests alone: for ours, and those of
// other daemons, whose bridges have such names. The host is to become no router between its networks. What Docker, started
// later, needs of it are answers to containers and their published ports. What leaves by where it came in is let pass: it
// may be what a bridge of the host's own has between its ports, which is seen here where br_netfilter is loaded.
//
// What guests may not do is refused, and not dropped, so that they need not wait. Of ICMP errors the kernel sends one a
// second: a TCP reset is none. But it would come from the wrong address where somebody has translated that.
//
// A packet must be accepted by every chain of every table that looks at it, so that "accept" here overrules nobody,
// and "drop" or "reject" overrules everybody.
var text = template.Must(template.New("").Funcs(template.FuncMap{
	"metadata": func() string { return strings.Join(metadata, ", ") },
}).Parse(`{{range .There -}}
delete table {{.}} {{$.Bridge}}
{{end -}}
create table inet {{.Bridge}} {
	comment "{{.Mark}}"
}
create table bridge {{.Bridge}} {
	comment "{{.Mark}}"
}

table inet {{.Bridge}} {
	set forwarding {
		type ifname
{{- with .Forwarding}}
		elements = { {{range $i, $n := .}}{{if $i}}, {{end}}"{{$n}}"{{end}} }
{{- end}}
	}

	set guests {
		type ether_addr . ipv4_addr
{{- with .Guests}}
		elements = {
{{- range .}}
			{{.MAC}} . {{.Addr}},
{{- end}}
		}
{{- end}}
	}

	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname "{{.Bridge}}" ether saddr . ip saddr @guests accept
		iifname "{{.Bridge}}" drop
	}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname "{{.Bridge}}" jump from_guest_to_host
		iifname != "lo" ip daddr {{.Gateway}} drop
	}

	chain from_guest_to_host {
		ct state established,related accept
{{- if .Host}}
		accept
{{- else}}
		ip daddr {{.Gateway}} udp dport 53 accept
		ip daddr {{.Gateway}} tcp dport 53 accept
		ip daddr {{.Gateway}} icmp type echo-request accept
		goto refuse
{{- end}}
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "{{.Bridge}}" oifname "{{.Bridge}}" {{if .Peers}}accept{{else}}drop{{end}}
		iifname "{{.Bridge}}" jump from_guest
		oifname "{{.Bridge}}" jump to_guest
		meta nfproto ipv4 iifname @forwarding oifname != "banger0" oifname != "bng*" goto from_closed
	}

	chain from_closed {
		ct state established,related accept
		ct status dnat accept
{{- range .Forwarding}}
		iifname "{{.}}" oifname "{{.}}" accept
{{- end}}
		drop
	}

	chain from_guest {
		ct state invalid drop
		ct state established,related accept
		ct status dnat reject with icmpx admin-prohibited
{{- if not .Metadata}}
		ip daddr { {{metadata}} } goto refuse
{{- end}}
	}

	chain refuse {
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}

	chain to_guest {
		ct state established,related accept
		drop
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {{.Subnet}} oifname != "{{.Bridge}}" masquerade
	}
}

table bridge {{.Bridge}} {
	set cards {
		type ifname . ether_addr
{{- with .Guests}}
		elements = {
{{- range .}}
			"{{.Tap}}" . {{.MAC}},
{{- end}}
		}
{{- end}}
	}

	set guests {
		type ifname . ether_addr . ipv4_addr
{{- with .Guests}}
		elements = {
{{- range .}}
			"{{.Tap}}" . {{.MAC}} . {{.Addr}},
{{- end}}
		}
{{- end}}
	}

	set taps {
		type ifname
{{- if or .Guests .Shut}}
		elements = {
{{- range .Guests}}
			"{{.Tap}}",
{{- end}}
{{- range .Shut}}
			"{{.}}",
{{- end}}
		}
{{- end}}
	}

	chain prerouting {
		type filter hook prerouting priority dstnat; policy accept;
		iifname @taps jump from_guest
	}

	chain from_guest {
		iifname . ether saddr != @cards drop
		ether type arp iifname . arp saddr ether . arp saddr ip @guests accept
		ether type ip iifname . ether saddr . ip saddr @guests accept
		drop
	}
}
`))

// Render writes the table as a script for nft that puts it in the place of the one there is, of which there are the given
// families. One that is not there is not deleted for safety's sake: a commit that deletes makes the caller wait for the
// end of all packets under way. The same table is the same text.
func Render(t Table, there ...string) string {
	t.Guests = slices.SortedFunc(slices.Values(t.Guests), func(a, b Guest) int { return strings.Compare(a.Tap, b.Tap) })
	t.Shut = slices.Sorted(slices.Values(t.Shut))
	t.Forwarding = slices.Sorted(slices.Values(t.Forwarding))
	t.Subnet = t.Subnet.Masked()
	var b strings.Builder
	_ = text.Execute(&b, struct { // fails only when the template is wrong: a test renders each of its branches
		Table
		Mark  string
		There []string
	}{t, mark, there})
	return b.String()
}
