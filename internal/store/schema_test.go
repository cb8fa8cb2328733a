package store

import (
	"database/sql"
	"reflect"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// No kernel fact may be stored: neither as a column, nor as a key of the stored JSON.
func TestSchemaHoldsNoKernelFact(t *testing.T) {
	s := open(t)
	var filled vm.VMRecord
	fill(reflect.ValueOf(&filled).Elem())
	filled.Want, filled.Runtime.State = vm.WantRunning, vm.StateRunning
	if _, err := s.CreateVM(t.Context(), filled); err != nil {
		t.Fatal(err)
	}
	forbidden := map[string]bool{"start_time": true, "boot_id": true, "cgroup": true}
	handles := reflect.TypeFor[vm.VMHandles]()
	for i := range handles.NumField() {
		key, _, _ := strings.Cut(handles.Field(i).Tag.Get("json"), ",")
		forbidden[key] = true
	}
	parts := []string{"pid", "tap", "loop", "dm_", "devmapper", "ifindex", "major", "minor"}
	check := func(where, key string) {
		if forbidden[key] {
			t.Errorf("%s: %q is a kernel fact", where, key)
		}
		for _, p := range parts {
			if key == p || strings.HasPrefix(key, p) && p != "pid" || strings.HasSuffix(key, "_"+p) {
				t.Errorf("%s: %q sounds like a kernel fact (%s)", where, key, p)
			}
		}
	}
	rows, err := s.db.Query(`SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns := 0
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		columns++
		check("table "+table, column)
	}
	if columns < 20 {
		t.Fatalf("looked at %d columns only", columns)
	}
	for _, column := range []string{"spec", "runtime"} {
		var keys []string
		q, err := s.db.Query(`SELECT j.key FROM vms, json_tree(vms.` + column + `) j WHERE j.key IS NOT NULL`)
		if err != nil {
			t.Fatal(err)
		}
		for q.Next() {
			var k sql.NullString
			if err := q.Scan(&k); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k.String)
		}
		q.Close()
		if len(keys) < 5 {
			t.Fatalf("column %s has %d keys only", column, len(keys))
		}
		for _, k := range keys {
			check("JSON in column "+column, k)
		}
	}
}

// fill sets every field to something, so that omitted ones show up too.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x"), value)
	}
}
