package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

// TestUpgradeFromEverySchema makes a database as each earlier banger would have left it, with a row in every table, and
// opens it with this one: every row is there, with what it said, can be read, and loses nothing by being written again. A new
// migration joins by being there.
func TestUpgradeFromEverySchema(t *testing.T) {
	all, err := migrationFiles()
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	for n := range len(all) + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "banger.db")
			var before map[string]map[string]any
			raw(t, path, func(db *sql.DB) {
				for i, file := range all[:n] {
					stmt, err := fs.ReadFile(migrations, file)
					must(t, err)
					exec(t, db, string(stmt))
					exec(t, db, fmt.Sprintf("PRAGMA user_version = %d", i+1))
				}
				for _, table := range tables(t, db) {
					fillTable(t, db, table)
				}
				before = content(t, db, tables(t, db))
			})
			for range 2 { // the second finds nothing to do
				s, err := Open(t.Context(), path)
				must(t, err)
				vms, err := s.VMs(t.Context())
				must(t, err)
				for _, r := range vms {
					if r.State == vm.StateError || r.Runtime.LastError != "x" {
						t.Errorf("a row cannot be read: %s", r.Runtime.LastError)
					}
					_, err := s.Change(t.Context(), r.ID, func(*vm.VMRecord) error { return nil })
					must(t, err)
				}
				images, err := s.Images(t.Context())
				must(t, err)
				kernels, err := s.Kernels(t.Context())
				must(t, err)
				if n > 0 && (len(vms) != 1 || len(images) != 1 || len(kernels) != 1) {
					t.Errorf("%d VMs, %d images, %d kernels", len(vms), len(images), len(kernels))
				}
				must(t, s.Close())
			}
			raw(t, path, func(db *sql.DB) {
				after := content(t, db, slices.Collect(maps.Keys(before)))
				for table, row := range before {
					now := after[table]
					for column, value := range row {
						if !reflect.DeepEqual(now[column], value) {
							t.Errorf("%s.%s was %v, is %v", table, column, value, now[column])
						}
					}
				}
				var have int
				must(t, db.QueryRow("PRAGMA user_version").Scan(&have))
				if have != len(all) {
					t.Errorf("schema %d, want %d", have, len(all))
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, db *sql.DB, stmt string, args ...any) {
	t.Helper()
	if _, err := db.Exec(stmt, args...); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

func raw(t *testing.T, path string, f func(*sql.DB)) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=foreign_keys(1)")
	must(t, err)
	f(db)
	must(t, db.Close())
}

// tables are those of the schema in the order of their making: what one refers to is before it.
func tables(t *testing.T, db *sql.DB) (names []string) {
	t.Helper()
	rows, err := db.Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid`)
	must(t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		names = append(names, name)
	}
	must(t, rows.Err())
	return names
}

var oneOf = regexp.MustCompile(`(\w+)[^,\n]*CHECK \(\w+ IN \('(\w+)'`)

// fillTable puts one row into a table: the first word of those that a column's check allows, else something of its type
// and, where the name says more, of that kind.
func fillTable(t *testing.T, db *sql.DB, table string) {
	t.Helper()
	var stmt string
	must(t, db.QueryRow(`SELECT sql FROM sqlite_master WHERE name = ?`, table).Scan(&stmt))
	allowed := map[string]string{}
	for _, m := range oneOf.FindAllStringSubmatch(stmt, -1) {
		allowed[m[1]] = m[2]
	}
	var r vm.VMRecord
	fill(reflect.ValueOf(&r).Elem())
	r.Runtime.State = vm.StateStopped // as in the column
	spec, err := json.Marshal(r.Spec)
	must(t, err)
	runtime, err := json.Marshal(r.Runtime)
	must(t, err)
	known := map[string]string{"id": "0123456789ab", "vm": "0123456789ab", "spec": string(spec), "runtime": string(runtime), "env": `["A=b"]`,
		"created_at": "2025-01-02T03:04:05Z", "started_at": "2025-01-02T03:04:06Z"}
	rows, err := db.Query(`SELECT name, type FROM pragma_table_info(?)`, table)
	must(t, err)
	values := map[string]any{}
	for rows.Next() {
		var name, kind string
		must(t, rows.Scan(&name, &kind))
		text := kind == "TEXT"
		switch {
		case allowed[name] != "":
			values[name] = allowed[name]
		case text && known[name] != "":
			values[name] = known[name]
		case text:
			values[name] = table + " " + name
		default:
			values[name] = int64(len(values) + 1)
		}
	}
	must(t, rows.Err())
	columns := slices.Sorted(maps.Keys(values))
	args := make([]any, len(columns))
	for i, c := range columns {
		args[i] = values[c]
	}
	exec(t, db, fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", table, strings.Join(columns, ","), strings.Repeat(",?", len(columns)-1)), args...)
}

// content is the one row of each table.
func content(t *testing.T, db *sql.DB, of []string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, table := range of {
		rows, err := db.Query(`SELECT * FROM ` + table)
		must(t, err)
		columns, err := rows.Columns()
		must(t, err)
		for rows.Next() {
			if all[table] != nil {
				t.Fatalf("table %s has more rows than one", table)
			}
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			must(t, rows.Scan(into...))
			all[table] = map[string]any{}
			for i, c := range columns {
				all[table][c] = values[i]
			}
		}
		must(t, rows.Err())
	}
	return all
}
