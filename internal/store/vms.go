package store

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"banger/internal/vm"
)

const vmColumns = `id, name, want, state, generation, image, image_digest, kernel, kernel_digest, vmm, disk, network, created_at, started_at, spec, runtime`

// ErrStale says that a VM's intent changed since the record was read: read it again and decide anew.
var ErrStale = errors.New("the VM's intent has changed meanwhile")

// CreateVM commits a new record, with a lease of each range, and returns it with these in it. CodeExists when the name (or
// id) is taken, CodeConflict when a range is used up.
func (s *Store) CreateVM(ctx context.Context, r vm.VMRecord, ranges ...Range) (vm.VMRecord, error) {
	err := s.tx(ctx, "create a VM in", func(tx *sql.Tx) error {
		chosen, err := choose(ctx, tx, &r, ranges)
		if err != nil {
			return err
		}
		started, spec, runtime, err := row{VMRecord: r}.encode()
		if err != nil {
			return err
		}
		_, err = tx.StmtContext(ctx, s.stmts.insertVM).ExecContext(ctx,
			r.ID, r.Name, r.Want, r.Runtime.State, r.Generation, r.Image, r.ImageDigest, r.Kernel, r.KernelDigest,
			r.VMM, r.Disk, r.Network, formatTime(r.CreatedAt), started, spec, runtime)
		if isUnique(err) {
			return vm.Errorf(vm.CodeExists, "a VM named %q exists", r.Name).
				WithHint("choose another --name, or delete it: banger vm delete %s", r.Name)
		}
		if err != nil {
			return err
		}
		return lease(ctx, tx, r.ID, ranges, chosen)
	})
	return r, err
}

// VM reads one record by id; CodeNotFound when there is none.
func (s *Store) VM(ctx context.Context, id vm.ID) (vm.VMRecord, error) {
	return one(s.readVMs(s.stmts.vm.QueryContext(ctx, id)))(removed(id))
}

// VMByRef reads the record whose name or id is ref, or whose id alone begins with it.
func (s *Store) VMByRef(ctx context.Context, ref string) (vm.VMRecord, error) {
	rs, err := s.readVMs(s.stmts.vmByName.QueryContext(ctx, ref))
	if err != nil || len(rs) == 1 {
		return one(rs, err)(nil)
	}
	for _, r := range rs { // one VM's name may be another's id
		if r.Name == ref {
			return r, nil
		}
	}
	digits := strings.ToLower(ref)
	if rs, err = s.readVMs(s.stmts.vmByPrefix.QueryContext(ctx, digits, digits+"g")); err != nil { // an id's digits are hexadecimal
		return vm.VMRecord{}, err
	}
	switch {
	case len(rs) == 1 && ref != "":
		return rs[0], nil
	case len(rs) > 1 && ref != "":
		return vm.VMRecord{}, vm.Errorf(vm.CodeInvalid, "%q is the beginning of %d VM ids", ref, len(rs)).WithHint("give more digits, or the name")
	}
	if near := s.nearest(ctx, `SELECT name FROM vms ORDER BY name`, ref); near != "" {
		return vm.VMRecord{}, vm.Errorf(vm.CodeNotFound, "no VM named %q", ref).WithHint("%sbanger vm list shows all", meant(near))
	}
	return vm.VMRecord{}, notFound(ref)
}

// meant begins the hint where a name was not found; empty where none is near it.
func meant(near string) string {
	if near == "" {
		return ""
	}
	return "did you mean " + near + "? "
}

// nearest is the name, of those that query selects, that was probably meant; empty where none is near, or they cannot be read.
func (s *Store) nearest(ctx context.Context, query, ref string) string {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return ""
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var name string
		if rows.Scan(&name) != nil {
			return ""
		}
		names = append(names, name)
	}
	if rows.Err() != nil {
		return ""
	}
	return vm.Nearest(ref, names)
}

func notFound(ref string) error {
	return vm.Errorf(vm.CodeNotFound, "no VM named %q", ref).WithHint("banger vm list shows all")
}

// removed is the error for an id without a row: nobody has one but from a row that was there.
func removed(id vm.ID) error {
	return vm.Errorf(vm.CodeNotFound, "VM %s was removed meanwhile", id)
}

// VMs reads all records, oldest first. A row of which a part cannot be read is returned with State error (or, while the
// VM runs or goes, with that) and the reason in LastError, so that one broken VM never hides the others.
func (s *Store) VMs(ctx context.Context) ([]vm.VMRecord, error) {
	records, err := s.SharedVMs(ctx)
	return slices.Clone(records), err
}

// SharedVMs is VMs for who changes nothing of what it is given: a thousand records are a megabyte to copy.
func (s *Store) SharedVMs(ctx context.Context) ([]vm.VMRecord, error) {
	s.idle.Reset(keepList)
	// Somebody may have seen a commit already that does not count yet: no commit is under way, then its count is looked at.
	quiet := s.writing.Load() == 0
	writes := s.writes.Load() // before the query: rows that are newer than this are only read once more
	if l := s.list.Load(); quiet && l != nil && l.writes == writes {
		return l.records, nil
	}
	records, err := s.readVMs(s.db.QueryContext(ctx, `SELECT `+vmColumns+` FROM vms ORDER BY created_at, id`))
	if err != nil {
		return nil, err
	}
	s.list.Store(&vmList{writes, records})
	return records, nil
}

// SetWant changes the intent and the state shown meanwhile, and returns the new record. A VM wanted gone stays so; what has
// failed so far counts no more, and is tried at once when the same is wanted again. also sees
// the record as it was, in the same transaction; it may refuse all of it, and change more.
func (s *Store) SetWant(ctx context.Context, id vm.ID, want vm.Want, state vm.State, also ...func(*vm.VMRecord) error) (vm.VMRecord, error) {
	return s.update(ctx, id, func(_ *sql.Tx, r *vm.VMRecord) error {
		if r.Want == vm.WantGone && want != vm.WantGone {
			return vm.Errorf(vm.CodeConflict, "VM %s is being removed", r.Name)
		}
		for _, f := range also {
			if err := f(r); err != nil {
				return err
			}
		}
		if r.Want == want && r.Runtime.State == state && r.Runtime.RestartAt.IsZero() && r.Runtime.Attempts == 0 {
			return nil
		}
		r.Generation++
		r.Want, r.Runtime.State = want, state
		r.Runtime.Attempts, r.Runtime.RetryAt = 0, time.Time{}
		r.Runtime.LastError, r.Runtime.LastErrorAt = "", time.Time{}
		r.Runtime.Restarts, r.Runtime.RestartAt = 0, time.Time{}
		return nil
	})
}

// Commit changes what a worker found out, if the intent is still of this generation; else ErrStale.
func (s *Store) Commit(ctx context.Context, id vm.ID, generation int64, change func(*vm.VMRecord)) (vm.VMRecord, error) {
	return s.update(ctx, id, func(_ *sql.Tx, r *vm.VMRecord) error {
		if r.Generation != generation {
			return ErrStale
		}
		change(r)
		return nil
	})
}

// Change changes what a VM is, whatever its worker is at, and returns the new record. One that is wanted gone stays as it is
// (CodeConflict), as does a spec that cannot be read (CodeCorrupt). CodeExists when another VM has the name.
func (s *Store) Change(ctx context.Context, id vm.ID, change func(*vm.VMRecord) error) (vm.VMRecord, error) {
	return s.update(ctx, id, func(_ *sql.Tx, r *vm.VMRecord) error {
		if r.Want == vm.WantGone {
			return vm.Errorf(vm.CodeConflict, "VM %s is being removed", r.Name)
		}
		return change(r)
	})
}

func (s *Store) update(ctx context.Context, id vm.ID, change func(*sql.Tx, *vm.VMRecord) error) (vm.VMRecord, error) {
	var out vm.VMRecord
	stale := false
	err := s.vital(ctx, "update a VM in", func(tx *sql.Tx) error {
		r, err := s.scan(tx.StmtContext(ctx, s.stmts.vm).QueryRowContext(ctx, id))
		if errors.Is(err, sql.ErrNoRows) {
			return removed(id)
		}
		if err != nil {
			return err
		}
		before := r.VMRecord
		if err := change(tx, &r.VMRecord); err != nil {
			if errors.Is(err, ErrStale) {
				stale = true
				return nil
			}
			return err
		}
		doing := ""
		switch _, bad := r.bad["spec"]; {
		case r.err != nil && r.Want == vm.WantRunning && before.Want != vm.WantRunning:
			doing = "start"
		case bad && !reflect.DeepEqual(r.Spec, before.Spec):
			doing = "change"
		}
		if doing != "" {
			return vm.Errorf(vm.CodeCorrupt, "%s VM %s: %w", doing, r.Name, r.err).
				WithHint("what the VM should be is not known; restore the row from a backup of the database, or: banger vm delete %s", r.Name)
		}
		if _, bad := r.bad["runtime"]; bad {
			s.unread.Store(id, r.Runtime) // before the commit: who reads after it must find this
		}
		out = r.shown()
		started, spec, runtime, err := r.encode()
		if err != nil {
			return err
		}
		_, err = tx.StmtContext(ctx, s.stmts.updateVM).ExecContext(ctx,
			r.Name, r.Want, r.Runtime.State, r.Generation, started, spec, runtime, id)
		if isUnique(err) {
			return vm.Errorf(vm.CodeExists, "a VM named %q exists", r.Name).WithHint("choose another name")
		}
		return err
	})
	if err == nil && stale {
		err = ErrStale
	}
	return out, err
}

// DeleteVM removes the row of a VM that is wanted gone: the last act of a removal.
func (s *Store) DeleteVM(ctx context.Context, id vm.ID) error {
	return s.vital(ctx, "delete a VM from", func(tx *sql.Tx) error {
		_, err := tx.StmtContext(ctx, s.stmts.deleteVM).ExecContext(ctx, id)
		if err == nil {
			s.unread.Delete(id)
		}
		return err
	})
}

// readVMs reads the rows that a query gave, and ends it.
func (s *Store) readVMs(rows *sql.Rows, err error) ([]vm.VMRecord, error) {
	if err != nil {
		return nil, s.explain("read VMs from", err)
	}
	defer func() { _ = rows.Close() }()
	out := []vm.VMRecord{}
	for rows.Next() {
		r, err := s.scan(rows)
		if err != nil {
			return nil, s.explain("read VMs from", err)
		}
		out = append(out, r.shown())
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read VMs from", err)
	}
	return out, nil
}
