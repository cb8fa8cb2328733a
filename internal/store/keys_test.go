package store

import (
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// storedJSON is what each column that holds JSON is written from.
var storedJSON = map[string]reflect.Type{
	"vms.spec":    reflect.TypeFor[vm.Spec](),
	"vms.runtime": reflect.TypeFor[vm.VMRuntime](),
	"images.env":  reflect.TypeOf(vm.Image{}.Env),
}

// keyLine is how a migration says which keys of stored JSON its schema has, and no longer has.
var keyLine = regexp.MustCompile(`(?m)^-- (no )?key (\S+ \S+)$`)

// TestStoredKeysBelongToASchema holds that a database with keys which an older banger does not know has a schema that it
// refuses: it would leave them out of each row that it writes, and they are gone for good.
func TestStoredKeysBelongToASchema(t *testing.T) {
	files, err := migrationFiles()
	must(t, err)
	named := map[string]bool{}
	for _, file := range files {
		stmt, err := fs.ReadFile(migrations, file)
		must(t, err)
		for _, m := range keyLine.FindAllStringSubmatch(string(stmt), -1) {
			gone, key := m[1] != "", m[2]
			if named[key] != gone {
				t.Errorf("%s says %q, which is so already", file, m[0])
			}
			if named[key] = true; gone {
				delete(named, key)
			}
		}
	}
	stored := map[string]bool{}
	for column, kind := range storedJSON {
		keys(column, kind, stored)
	}
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(named)) {
		if !stored[key] {
			lines = append(lines, "-- no key "+key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(stored)) {
		if !named[key] {
			lines = append(lines, "-- key "+key)
		}
	}
	if len(lines) > 0 {
		t.Errorf("the JSON that is stored in rows has changed, and the schema is still %d.\n"+
			"A banger of before would open such a database, and drop what it does not know from each row that it writes.\n"+
			"Add a migration, internal/store/migrations/%04d_WHAT.sql, with these lines (and SELECT 1; where it has nothing else to do);\n"+
			"one that was committed before stays as it is: databases that have it are about.\n\n%s", len(files), len(files)+1, strings.Join(lines, "\n"))
	}
}

// keys adds "column.key.key kind" of each value that may be in the JSON of a type: [] is in a list, {} under any key of a map.
func keys(at string, t reflect.Type, add map[string]bool) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		add[at+" time"] = true
	case t.Kind() == reflect.Pointer:
		keys(at, t.Elem(), add)
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		keys(at+"[]", t.Elem(), add)
	case t.Kind() == reflect.Map:
		keys(at+"{}", t.Elem(), add)
	case t.Kind() == reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if key == "" {
				key = f.Name
			}
			if f.IsExported() && key != "-" && (!f.Anonymous || f.Tag.Get("json") != "") {
				keys(at+"."+key, f.Type, add)
			}
		}
	default:
		add[at+" "+t.Kind().String()] = true
	}
}

func TestKeysOfNestedTypes(t *testing.T) {
	type inner struct {
		A int `json:"a,omitempty"`
		b int
	}
	type outer struct {
		inner
		List  []inner           `json:"list"`
		Map   map[string]*inner `json:"map"`
		At    time.Time         `json:"at,omitzero"`
		None  bool              `json:"-"`
		Plain string
	}
	_ = inner{b: 1}
	got := map[string]bool{}
	keys("x", reflect.TypeFor[outer](), got)
	want := []string{"x.Plain string", "x.a int", "x.at time", "x.list[].a int", "x.map{}.a int"}
	if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) {
		t.Errorf("keys %q, want %q", have, want)
	}
}

// A column that holds JSON and is not in storedJSON has keys that nobody looks at.
func TestAllStoredJSONIsKnown(t *testing.T) {
	s := open(t)
	var r vm.VMRecord
	fill(reflect.ValueOf(&r).Elem())
	r.Want, r.Runtime.State = vm.WantRunning, vm.StateRunning
	_, err := s.CreateVM(t.Context(), r)
	must(t, err)
	var i vm.Image
	fill(reflect.ValueOf(&i).Elem())
	must(t, s.PutImage(t.Context(), i))
	var k vm.Kernel
	fill(reflect.ValueOf(&k).Elem())
	must(t, s.PutKernel(t.Context(), k))
	seen := map[string]bool{}
	for table, row := range content(t, s.db, tables(t, s.db)) {
		for column, value := range row {
			text, _ := value.(string)
			if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
				continue
			}
			seen[table+"."+column] = true
			if storedJSON[table+"."+column] == nil {
				t.Errorf("%s.%s holds JSON, and storedJSON does not say of what type", table, column)
			}
		}
	}
	if len(seen) != len(storedJSON) {
		t.Errorf("JSON was found in %v only", seen)
	}
}
