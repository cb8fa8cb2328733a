package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Looking takes no program: the kernel is asked by netlink (linux/netfilter/nf_tables.h), a fraction of a millisecond
// where a run of nft costs several.

// tableInfo is a table, whoever's it is.
type tableInfo struct {
	family, name string
	comment      string
}

// rule is a rule of somebody's chain.
type rule struct {
	handle  uint64
	comment string
}

// words are nft's for the families that are looked at.
var words = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV4: "ip"}

// The attributes in which a comment is kept: libnftnl's udata.h, which nft has shared with the kernel's clients since
// comments are there. x/sys has no name for the table's.
const (
	tableUserdata = 6
	udataComment  = 0
)

// tables lists the tables of a family; NFPROTO_UNSPEC means all families.
func tables(family byte) ([]tableInfo, error) {
	messages, err := dump(unix.NFT_MSG_GETTABLE, family)
	if err != nil {
		return nil, fmt.Errorf("list the tables of nftables: %w", err)
	}
	var all []tableInfo
	for _, m := range messages {
		if of, known := words[m.family]; known {
			all = append(all, tableInfo{of, m.text(unix.NFTA_TABLE_NAME), comment(m.value(tableUserdata))})
		}
	}
	return all, nil
}

// filterChains lists the chains of the table "ip filter".
func filterChains() ([]string, error) {
	messages, err := dump(unix.NFT_MSG_GETCHAIN, unix.NFPROTO_IPV4)
	if err != nil {
		return nil, fmt.Errorf("list the chains of nftables: %w", err)
	}
	var names []string
	for _, m := range messages {
		if m.text(unix.NFTA_CHAIN_TABLE) == "filter" {
			names = append(names, m.text(unix.NFTA_CHAIN_NAME))
		}
	}
	return names, nil
}

// filterRules lists the rules of a chain of the table "ip filter"; none where there is no such chain.
func filterRules(chain string) ([]rule, error) {
	messages, err := dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_IPV4,
		named(unix.NFTA_RULE_TABLE, "filter"), named(unix.NFTA_RULE_CHAIN, chain))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list the rules of chain %s: %w", chain, err)
	}
	var rules []rule
	for _, m := range messages {
		r := rule{comment: comment(m.value(unix.NFTA_RULE_USERDATA))}
		if b := m.value(unix.NFTA_RULE_HANDLE); len(b) == 8 {
			r.handle = binary.BigEndian.Uint64(b)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// interfaces lists the elements of a set of interface names in a table "inet"; none where there is no such set.
func interfaces(table, set string) ([]string, error) {
	messages, err := dump(unix.NFT_MSG_GETSETELEM, unix.NFPROTO_INET,
		named(unix.NFTA_SET_ELEM_LIST_TABLE, table), named(unix.NFTA_SET_ELEM_LIST_SET, set))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list the set %s of table inet %s: %w", set, table, err)
	}
	var names []string
	for _, m := range messages {
		for _, e := range attributes(m.value(unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			key := find(attributes(find(attributes(e.value), unix.NFTA_SET_ELEM_KEY)), unix.NFTA_DATA_VALUE)
			if name := word(key); name != "" {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// message is one element of a dump.
type message struct {
	family byte
	attrs  []attribute
}

type attribute struct {
	kind  uint16
	value []byte
}

func (m message) value(kind uint16) []byte { return find(m.attrs, kind) }
func (m message) text(kind uint16) string  { return word(m.value(kind)) }

// named is an attribute of a request.
func named(kind int, name string) *nl.RtAttr { return nl.NewRtAttr(kind, nl.ZeroTerminated(name)) }

// dump asks for all of a kind. A dump during which somebody changed the rules is made again.
func dump(kind int, family byte, of ...*nl.RtAttr) ([]message, error) {
	var answer [][]byte
	err := error(nl.ErrDumpInterrupted)
	for range 10 {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		for _, a := range of {
			req.AddData(a)
		}
		answer, err = req.Execute(unix.NETLINK_NETFILTER, 0)
		if !errors.Is(err, nl.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT): // nobody serves it
		return nil, fmt.Errorf("%w in this kernel: %w", ErrMissing, err)
	case errors.Is(err, unix.EPERM):
		return nil, ErrDenied
	case err != nil:
		return nil, err
	}
	var all []message
	for _, b := range answer {
		if len(b) >= nl.SizeofNfgenmsg {
			all = append(all, message{family: b[0], attrs: attributes(b[nl.SizeofNfgenmsg:])})
		}
	}
	return all, nil
}

// attributes takes a list of them apart. What is cut off is left out.
func attributes(b []byte) (list []attribute) {
	const head, nested = 4, unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	for len(b) >= head {
		size := int(binary.NativeEndian.Uint16(b))
		if size < head || size > len(b) {
			return list
		}
		list = append(list, attribute{binary.NativeEndian.Uint16(b[2:]) &^ nested, b[head:size]})
		b = b[min((size+3)&^3, len(b)):]
	}
	return list
}

func find(list []attribute, kind uint16) []byte {
	for _, a := range list {
		if a.kind == kind {
			return a.value
		}
	}
	return nil
}

func word(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// comment is that of a table or rule: user data are elements of a type, a length and a value.
func comment(userdata []byte) string {
	for b := userdata; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if b[0] == udataComment {
			return word(b[2 : 2+int(b[1])])
		}
	}
	return ""
}
