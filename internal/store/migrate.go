package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"banger/internal/vm"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationFiles are the embedded migrations in their order; the schema's version is how many were applied.
func migrationFiles() ([]string, error) { return fs.Glob(migrations, "migrations/*.sql") } // sorted

// migrate applies the missing migrations, each in a transaction of its own. user_version counts them.
func (s *Store) migrate(ctx context.Context) error {
	files, err := migrationFiles()
	if err != nil {
		return err
	}
	var have int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return s.explain("read the schema version of", err)
	}
	if err := s.known(have, len(files)); err != nil {
		return err
	}
	for i := have; i < len(files); i++ {
		stmt, err := fs.ReadFile(migrations, files[i])
		if err != nil {
			return err
		}
		err = s.tx(ctx, "migrate", func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, string(stmt)); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("apply %s: %w", files[i], err)
		}
	}
	return nil
}

// known refuses the schema of a newer banger.
func (s *Store) known(have, newest int) error {
	if have > newest {
		return vm.Errorf(vm.CodeConflict, "database %s has schema %d, this banger knows up to %d", s.path, have, newest).
			WithHint("it was written by a newer banger: use that one; nothing was changed")
	}
	return nil
}
