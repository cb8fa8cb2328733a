package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"banger/internal/vm"
)

// row is a VM's row. Of a column that cannot be read it keeps the text, which is never written over: whoever repairs the
// database by hand needs it. What is found out later about a VM whose runtime cannot be read lives in Store.unread, as
// long as the process.
type row struct {
	vm.VMRecord
	bad map[string]string // column to its text
	err error             // why, of all of them
}

type scanner interface{ Scan(...any) error }

// scan reads one row. It fails only when nothing can be read; else the record has all that could.
func (s *Store) scan(from scanner) (row, error) {
	var r row
	var created, started, spec, runtime string
	var state vm.State
	err := from.Scan(&r.ID, &r.Name, &r.Want, &state, &r.Generation, &r.Image, &r.ImageDigest, &r.Kernel, &r.KernelDigest,
		&r.VMM, &r.Disk, &r.Network, &created, &started, &spec, &runtime)
	if err != nil {
		return row{}, err
	}
	r.part("spec", spec, json.Unmarshal([]byte(spec), &r.Spec))
	r.part("runtime", runtime, json.Unmarshal([]byte(runtime), &r.Runtime))
	r.CreatedAt, err = parseTime(created)
	r.part("created_at", created, err)
	r.StartedAt, err = parseTime(started)
	r.part("started_at", started, err)
	if _, bad := r.bad["runtime"]; bad {
		if since, ok := s.unread.Load(r.ID); ok {
			r.Runtime = since.(vm.VMRuntime)
		}
	}
	r.Runtime.State, r.State = state, state
	return r, nil
}

// part notes what became of a column.
func (r *row) part(column, text string, err error) {
	if err == nil {
		return
	}
	if r.bad == nil {
		r.bad = map[string]string{}
	}
	r.bad[column] = text
	r.err = errors.Join(r.err, fmt.Errorf("row of VM %s: %s: %w", r.ID, column, err))
}

// shown is the record as its readers get it. A VM that runs or goes keeps its state, by which it is seen to; at rest, it
// is in error.
func (r row) shown() vm.VMRecord {
	if r.err != nil {
		switch r.Runtime.State {
		case vm.StateRunning, vm.StateStopping, vm.StateRemoving:
		default:
			r.Runtime.State = vm.StateError
		}
		if r.Runtime.LastError != "" {
			r.Runtime.LastError = "; " + r.Runtime.LastError
		}
		r.Runtime.LastError = strings.ReplaceAll(r.err.Error(), "\n", "; ") + r.Runtime.LastError
	}
	r.State = r.Runtime.State
	return r.VMRecord
}

// encode gives the texts of the columns that change.
func (r row) encode() (started, spec, runtime string, err error) {
	a, err := json.Marshal(r.Spec)
	if err != nil {
		return "", "", "", fmt.Errorf("encode the spec of VM %s: %w", r.ID, err)
	}
	b, err := json.Marshal(r.Runtime)
	if err != nil {
		return "", "", "", fmt.Errorf("encode the runtime of VM %s: %w", r.ID, err)
	}
	return r.text("started_at", formatTime(r.StartedAt)), r.text("spec", string(a)), r.text("runtime", string(b)), nil
}

// text is what to write to a column: what it has, when that could not be read.
func (r row) text(column, encoded string) string {
	if kept, bad := r.bad[column]; bad {
		return kept
	}
	return encoded
}
