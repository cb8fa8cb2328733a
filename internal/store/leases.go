package store

import (
	"context"
	"database/sql"
	"errors"

	"banger/internal/vm"
)

// Range asks for a lease with a new VM: the lowest number from First to Last that no VM has under this Kind; from Begin on,
// where that is one of them, and from First only when these are taken.
type Range struct {
	Kind        string // what is leased, in words for errors: "address in network bridge"
	First, Last uint32
	Begin       uint32
	Set         func(r *vm.VMRecord, n uint32) // puts it into the record, before that is written
}

// LeaseVM gives a VM that was made without it a lease, if its intent is still of this generation (else ErrStale), and
// returns the record with it. One that it has under this Kind already stays its own: a damaged row may have forgotten it.
func (s *Store) LeaseVM(ctx context.Context, id vm.ID, generation int64, want Range) (vm.VMRecord, error) {
	return s.update(ctx, id, func(tx *sql.Tx, r *vm.VMRecord) error {
		if r.Generation != generation {
			return ErrStale
		}
		var n uint32
		err := tx.QueryRowContext(ctx, `SELECT n FROM leases WHERE vm = ? AND kind = ?`, id, want.Kind).Scan(&n)
		if err == nil {
			want.Set(r, n)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		ranges := []Range{want}
		chosen, err := choose(ctx, tx, r, ranges)
		if err != nil {
			return err
		}
		return lease(ctx, tx, id, ranges, chosen)
	})
}

// choose finds the free number of each range, and puts it into the record.
func choose(ctx context.Context, tx *sql.Tx, r *vm.VMRecord, ranges []Range) ([]uint32, error) {
	var chosen []uint32
	for _, want := range ranges {
		n, err := lowestFree(ctx, tx, want)
		if err != nil {
			return nil, err
		}
		want.Set(r, n)
		chosen = append(chosen, n)
	}
	return chosen, nil
}

func lowestFree(ctx context.Context, tx *sql.Tx, want Range) (uint32, error) {
	for _, from := range []uint32{max(want.First, want.Begin), want.First} {
		n, err := lowestFrom(ctx, tx, want, from)
		if err != nil {
			return 0, err
		}
		if n <= uint64(want.Last) {
			return uint32(n), nil
		}
	}
	return 0, vm.Errorf(vm.CodeConflict, "no %s is free: all %d are taken", want.Kind, uint64(want.Last)-uint64(want.First)+1).
		WithHint("delete VMs that are not needed, or configure a larger range")
}

// lowestFrom is the lowest number that is free from a certain one on; above want.Last when none is.
func lowestFrom(ctx context.Context, tx *sql.Tx, want Range, from uint32) (uint64, error) {
	rows, err := tx.QueryContext(ctx, `SELECT n FROM leases WHERE kind = ? AND n BETWEEN ? AND ? ORDER BY n`, want.Kind, from, want.Last)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	free := uint64(from)
	for rows.Next() {
		var n uint64
		if err := rows.Scan(&n); err != nil {
			return 0, err
		}
		if n != free {
			break
		}
		free++
	}
	return free, rows.Err()
}

// lease records the chosen numbers; the VM's row must be there.
func lease(ctx context.Context, tx *sql.Tx, id vm.ID, ranges []Range, chosen []uint32) error {
	for i, want := range ranges {
		if _, err := tx.ExecContext(ctx, `INSERT INTO leases (kind, n, vm) VALUES (?,?,?)`, want.Kind, chosen[i], id); err != nil {
			return err
		}
	}
	return nil
}
