// Package store is the SQLite database of what VMs, images and kernels are. It holds all SQL of the program; one
// public method is one transaction. It stores intent and identity only, never a fact of the running kernel.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger/internal/act"
	"banger/internal/vm"
)

// Store is an open database. Safe for concurrent use.
type Store struct {
	db      *sql.DB
	path    string
	ballast ballast
	stmts   statements

	unread sync.Map // of vm.ID to vm.VMRuntime: see row

	// The last answer of VMs, good for as long as nothing was written: no other process writes this database.
	writing atomic.Int32  // commits under way, and those whose end writes does not show yet
	writes  atomic.Uint64 // grows after each commit, before the writer goes on
	list    atomic.Pointer[vmList]
	idle    *time.Timer // gives it up when nobody has asked for it for a while
}

// keepList is how long the answer of VMs is kept for the next who asks: with thousands of VMs it is most of what an idle
// daemon would hold.
const keepList = 10 * time.Second

// forget gives the list up, and what it and its making took of memory back to the host.
func (s *Store) forget() {
	s.list.Store(nil)
	debug.FreeOSMemory()
}

type vmList struct {
	writes  uint64
	records []vm.VMRecord
}

// Open opens or creates the database at path and brings its schema up to date. A file that is not a sound database, or
// is of a newer banger, is refused and left as it is, with all that lies beside it.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := act.Do(ctx, "directory", func() error { return os.MkdirAll(filepath.Dir(path), 0o700) }); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	s := &Store{path: path, ballast: ballast{path: filepath.Join(filepath.Dir(path), BallastName)}}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if err := act.Do(ctx, "database", func() error { return createPrivate(path) }); err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "create database %s: %w", path, err).WithHint("check the owner and mode of the file and its directory")
	}
	// Pragmas belong in the DSN: one set by a statement holds for one pooled connection only.
	db, err := sql.Open("sqlite", dsn(path, url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}}))
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4) // a new one costs more than what it is asked
	s.db = db
	s.idle = time.AfterFunc(keepList, s.forget)
	// The first connection makes the -wal and -shm files: on a full disk that takes the ballast as well.
	err = s.orWithoutBallast(ctx, func() error { return s.migrate(ctx) })
	if err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	s.ballast.load(ctx)
	return s, nil
}

func dsn(path string, query url.Values) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// createPrivate makes the file readable by its owner only, before SQLite would make it with the umask's mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Close releases the database.
func (s *Store) Close() error {
	s.idle.Stop()
	return s.db.Close()
}

// explain turns SQLite's codes into errors a person can act on.
func (s *Store) explain(what string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		if isFull(err) {
			return vm.Errorf(vm.CodeNoSpace, "%s database %s: %w", what, s.path, err).WithHint("free space on its file system and try again")
		}
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return s.corrupt(err)
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return vm.Errorf(vm.CodeUnavailable, "%s database %s: another program holds its lock: %w", what, s.path, err)
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
			return vm.Errorf(vm.CodeInternal, "%s database %s: %w", what, s.path, err).WithHint("check the owner and mode of the file and its directory")
		}
	}
	return fmt.Errorf("%s database %s: %w", what, s.path, err)
}

// tx runs f in one transaction. Errors of package vm pass as they are.
//
// The transaction itself is begun without the end of ctx: database/sql would roll it back on a goroutine of its own, which
// may still be at it, with the files open, when Close has returned.
func (s *Store) tx(ctx context.Context, what string, f func(*sql.Tx) error) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return s.explain(what, err)
	}
	defer func() { _ = conn.Close() }() // back to the others
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return s.explain(what, err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	err = f(tx)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		var known *vm.Error
		if errors.As(err, &known) {
			return err
		}
		return s.explain(what, err)
	}
	s.writing.Add(1)
	defer s.writing.Add(-1)
	err = act.Record(ctx, "rows", tx.Commit)
	s.writes.Add(1) // whatever a failed commit left
	if err != nil {
		return s.explain(what, err)
	}
	s.ballast.load(ctx)
	return nil
}

// vital is tx for what must work on a full disk too: a VM is deleted to make room.
func (s *Store) vital(ctx context.Context, what string, f func(*sql.Tx) error) error {
	return s.orWithoutBallast(ctx, func() error { return s.tx(ctx, what, f) })
}

// orWithoutBallast does it, and once more without the ballast if the disk was full.
func (s *Store) orWithoutBallast(ctx context.Context, do func() error) error {
	before := s.ballast.drops.Load()
	err := do()
	if !isFull(err) || !s.ballast.drop(ctx, before) {
		return err
	}
	return do()
}

// isFull says that a write found no room; SHMSIZE is how the index of the -wal file tells it.
func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE)
}

func isUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, s)
}
