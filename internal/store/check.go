package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"

	"banger/internal/act"
	"banger/internal/vm"
)

// check looks at the database before anything may write to it. A connection that may write carries the -wal file over
// into the database when it closes: what is damaged must stay as it was found, for whoever tries to save it.
func (s *Store) check(ctx context.Context) error {
	size, err := sizeOf(s.path)
	wal, werr := sizeOf(s.path + "-wal")
	journal, jerr := sizeOf(s.path + "-journal")
	if err := errors.Join(err, werr, jerr); err != nil {
		return fmt.Errorf("look at database %s: %w", s.path, err)
	}
	query := url.Values{"mode": {"ro"}}
	switch {
	case size == 0 && wal > 0: // SQLite would take it for a new one, and delete the -wal file
		return s.corrupt(fmt.Errorf("it is missing or empty, but its -wal file has %d bytes", wal))
	case size == 0:
		return nil // a new one
	case journal > 0: // its making was interrupted: only rolling back tells what it is
		query = url.Values{}
	case wal > walHeader:
		if err := checkWAL(s.path + "-wal"); err != nil {
			return s.corrupt(err)
		}
		// Read by an index in memory, which SQLite makes only where a -shm file is there that it may not write to.
		query.Set("readonly_shm", "1")
		remove, err := s.shm(ctx)
		if err != nil {
			return err
		}
		defer remove()
	default:
		query.Set("immutable", "1") // no lock, no -wal and no -shm file is made
	}
	db, err := sql.Open("sqlite", dsn(s.path, query))
	if err != nil {
		return fmt.Errorf("open database %s: %w", s.path, err)
	}
	defer func() { _ = db.Close() }()
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return s.explain("check", err)
	}
	if result != "ok" {
		return s.corrupt(errors.New(result))
	}
	var have int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return s.explain("read the schema version of", err)
	}
	files, err := migrationFiles()
	if err != nil {
		return err
	}
	return s.known(have, len(files))
}

// walHeader is the size of a -wal file's header: one that is not longer holds nothing.
const walHeader = 32

// checkWAL looks at the header of a -wal file (https://www.sqlite.org/fileformat2.html#walformat). The header is on the
// disk before anything follows it. A connection that may write takes one that is not whole for the end of the file, and
// writes over it; one that may only read waits for somebody to do so.
func checkWAL(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := make([]byte, walHeader)
	if _, err := io.ReadFull(f, h); err != nil {
		return err
	}
	var words binary.ByteOrder = binary.LittleEndian
	switch binary.BigEndian.Uint32(h) {
	case 0x377f0682:
	case 0x377f0683:
		words = binary.BigEndian
	default:
		return errors.New("its -wal file does not begin like one")
	}
	var a, b uint32
	for i := 0; i < 24; i += 8 {
		a += words.Uint32(h[i:]) + b
		b += words.Uint32(h[i+4:]) + a
	}
	if a != binary.BigEndian.Uint32(h[24:]) || b != binary.BigEndian.Uint32(h[28:]) {
		return errors.New("the header of its -wal file has a wrong checksum")
	}
	return nil
}

// shm makes sure that there is a -shm file. remove takes away what was made.
func (s *Store) shm(ctx context.Context) (remove func(), err error) {
	path := s.path + "-shm"
	var f *os.File
	err = act.Do(ctx, "database.index", func() (err error) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	_ = f.Close()
	return func() { _ = act.Do(ctx, "database.index.remove", func() error { return os.Remove(path) }) }, nil
}

// sizeOf is a file's size in bytes; 0 when there is none.
func sizeOf(path string) (int64, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (s *Store) corrupt(err error) error {
	return vm.Errorf(vm.CodeCorrupt, "database %s is corrupt: %w", s.path, err).
		WithHint("nothing was changed; restore the file from a backup, or, to begin anew, move it (with its -wal and -shm files) and the directory vms beside it away")
}
