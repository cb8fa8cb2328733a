package store

import (
	"context"
	"database/sql"

	"banger/internal/vm"
)

// DeleteImage removes the name of an image, unless VMs were made from its digest: then their names are returned, and nothing
// is changed. last says that no other name has the digest. CodeConflict when the name has another digest by now, or is gone.
func (s *Store) DeleteImage(ctx context.Context, name, digest string) (users []string, last bool, err error) {
	return s.drop(ctx, "image", name, digest, `SELECT name FROM vms WHERE image_digest = ? ORDER BY created_at, id`,
		`DELETE FROM images WHERE name = ? AND digest = ?`, `SELECT name FROM images WHERE digest = ?`)
}

// DeleteKernel removes the name of a kernel, unless VMs boot its digest: then their names are returned, and nothing is
// changed. last says that no other name has the digest. CodeConflict when the name has another digest by now, or is gone.
func (s *Store) DeleteKernel(ctx context.Context, name, digest string) (users []string, last bool, err error) {
	return s.drop(ctx, "kernel", name, digest, `SELECT name FROM vms WHERE kernel_digest = ? ORDER BY created_at, id`,
		`DELETE FROM kernels WHERE name = ? AND digest = ?`, `SELECT name FROM kernels WHERE digest = ?`)
}

// ImageUsers are the names and the VMs that have an image's digest.
func (s *Store) ImageUsers(ctx context.Context, digest string) (names, vms []string, err error) {
	return s.users(ctx, digest, `SELECT name FROM images WHERE digest = ? ORDER BY name`, `SELECT name FROM vms WHERE image_digest = ? ORDER BY created_at, id`)
}

// KernelUsers are the names and the VMs that have a kernel's digest.
func (s *Store) KernelUsers(ctx context.Context, digest string) (names, vms []string, err error) {
	return s.users(ctx, digest, `SELECT name FROM kernels WHERE digest = ? ORDER BY name`, `SELECT name FROM vms WHERE kernel_digest = ? ORDER BY created_at, id`)
}

func (s *Store) users(ctx context.Context, digest, namesOf, vmsOf string) (names, vms []string, err error) {
	if names, err = s.queryStrings(ctx, namesOf, digest); err == nil {
		vms, err = s.queryStrings(ctx, vmsOf, digest)
	}
	return names, vms, err
}

// drop looks and removes in one transaction, which no other writer can be in: a VM is committed before it, and found, or after.
func (s *Store) drop(ctx context.Context, kind, name, digest, usersOf, remove, others string) (users []string, last bool, err error) {
	err = s.vital(ctx, "delete a "+kind+" from", func(tx *sql.Tx) error {
		var err error
		if users, err = namesIn(ctx, tx, usersOf, digest); err != nil || len(users) > 0 {
			return err
		}
		result, err := tx.ExecContext(ctx, remove, name, digest)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return vm.Errorf(vm.CodeConflict, "it was deleted or replaced meanwhile").WithHint("look again with banger %s list", kind)
		}
		left, err := namesIn(ctx, tx, others, digest)
		last = len(left) == 0
		return err
	})
	return users, last, err
}

func namesIn(ctx context.Context, tx *sql.Tx, query, digest string) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, query, digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}
