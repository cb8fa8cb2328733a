package store

import (
	"context"
	"database/sql"
)

// statements are those that every command needs, parsed once for each connection: SQLite takes longer to parse one than to
// run it.
type statements struct {
	vm, vmByName, vmByPrefix, insertVM, updateVM, deleteVM *sql.Stmt
}

// prepare makes them; they end with the database.
func (s *Store) prepare(ctx context.Context) error {
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&s.stmts.vm, `SELECT ` + vmColumns + ` FROM vms WHERE id = ?`},
		{&s.stmts.vmByName, `SELECT ` + vmColumns + ` FROM vms WHERE name = ?1 OR id = ?1`},
		{&s.stmts.vmByPrefix, `SELECT ` + vmColumns + ` FROM vms WHERE id >= ?1 AND id < ?2`},
		{&s.stmts.insertVM, `INSERT INTO vms (` + vmColumns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`},
		{&s.stmts.updateVM, `UPDATE vms SET name=?, want=?, state=?, generation=?, started_at=?, spec=?, runtime=? WHERE id=?`},
		{&s.stmts.deleteVM, `DELETE FROM vms WHERE id = ? AND want = 'gone'`},
	} {
		var err error
		if *p.to, err = s.db.PrepareContext(ctx, p.text); err != nil {
			return s.explain("open", err)
		}
	}
	return nil
}
