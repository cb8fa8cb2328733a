package agent

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"

	"banger/internal/guest"
	"banger/internal/sockets"
)

func (s *Server) handleListeners(w http.ResponseWriter, _ *http.Request) {
	l, err := listListeners("/proc", maxListed)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	writeJSON(w, l)
}

// listListeners reads what the kernel below proc tells, by port. most bounds the bytes of the list.
func listListeners(proc string, most int) (guest.Listeners, error) {
	all := guest.Listeners{Listeners: []guest.Listener{}}
	found, err := sockets.List(proc)
	if err != nil {
		return all, err
	}
	inodes := map[uint64]bool{}
	for _, s := range found {
		inodes[s.Inode] = true
	}
	owners, err := sockets.Owners(proc, inodes)
	if err != nil {
		return all, err
	}
	var listeners []guest.Listener
	for _, s := range found {
		p := owners[s.Inode]
		listeners = append(listeners, guest.Listener{
			Protocol: s.Protocol, Address: s.Addr.Addr().Unmap().String(), Port: int(s.Addr.Port()), PID: p.PID, Process: guest.Plain(p.Name),
		})
	}
	slices.SortFunc(listeners, func(a, b guest.Listener) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Address, b.Address), cmp.Compare(a.PID, b.PID))
	})
	listeners = slices.Compact(listeners) // a server may have one socket for each of its threads
	all.Total = len(listeners)
	for size := 0; len(listeners) > 0; listeners = listeners[1:] {
		b, err := json.Marshal(listeners[0])
		if err != nil {
			return all, err
		}
		if size += len(b) + 1; size >= most {
			break
		}
		all.Listeners = append(all.Listeners, listeners[0])
	}
	return all, nil
}
