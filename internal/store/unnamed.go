package store

import (
	"context"
	"database/sql"
)

// Unnamed are the digests of one kind that may lie on the disk without a name, and are known to. Triggers of the schema keep
// the table when names come and go.
type Unnamed struct {
	s    *Store
	kind string
}

// UnnamedImages are those of the images.
func (s *Store) UnnamedImages() Unnamed { return Unnamed{s, "image"} }

// UnnamedKernels are those of the kernels.
func (s *Store) UnnamedKernels() Unnamed { return Unnamed{s, "kernel"} }

// Add commits that a digest is about to be there, before it has a name.
func (u Unnamed) Add(ctx context.Context, digest string) error {
	return u.s.tx(ctx, "announce the "+u.kind+" in", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO unnamed SELECT ?1, ?2 WHERE NOT EXISTS (
			SELECT 1 FROM images WHERE ?1 = 'image' AND digest = ?2 UNION ALL SELECT 1 FROM kernels WHERE ?1 = 'kernel' AND digest = ?2)`, u.kind, digest)
		return err
	})
}

// Drop forgets a digest of which nothing is on the disk any more.
func (u Unnamed) Drop(ctx context.Context, digest string) error {
	return u.s.vital(ctx, "forget the "+u.kind+" in", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM unnamed WHERE kind = ? AND digest = ?`, u.kind, digest)
		return err
	})
}

// All lists them.
func (u Unnamed) All(ctx context.Context) ([]string, error) {
	return u.s.queryStrings(ctx, `SELECT digest FROM unnamed WHERE kind = ?`, u.kind)
}
