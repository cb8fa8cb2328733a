package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Remembered (VMRecord, VMRuntime), live (VMHandles) and seen (Observed) never share a struct, and stay plain data that
// a file or a row can hold. This is the reason the project exists.
func TestKindsOfStateStayApart(t *testing.T) {
	kinds := []reflect.Type{reflect.TypeFor[VMRecord](), reflect.TypeFor[VMHandles](), reflect.TypeFor[Observed]()}
	names := make([]map[string]reflect.Type, len(kinds))
	for i, k := range kinds {
		names[i] = map[string]reflect.Type{}
		collect(t, k, k.Name(), names[i])
	}
	for i := range kinds {
		for j := range i {
			for field, typ := range names[i] {
				if other, ok := names[j][field]; ok && typ == other {
					t.Errorf("%s and %s both have %s", kinds[i].Name(), kinds[j].Name(), field)
				}
			}
		}
	}
}

// collect notes every JSON field below typ and refuses what is not plain data or points at another kind of state.
func collect(t *testing.T, typ reflect.Type, path string, into map[string]reflect.Type) {
	t.Helper()
	for i := range typ.NumField() {
		f := typ.Field(i)
		where := path + "." + f.Name
		if !f.IsExported() {
			t.Errorf("%s is not exported: it would not survive a roundtrip", where)
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || key == "-" {
			t.Errorf("%s has no JSON name", where)
		}
		into[key] = f.Type
		switch elem := f.Type; elem.Kind() {
		case reflect.Struct:
			if elem == reflect.TypeFor[time.Time]() {
				continue
			}
			if elem != reflect.TypeFor[Spec]() && elem != reflect.TypeFor[VMRuntime]() {
				t.Errorf("%s is a %s: kinds of state are not nested in each other", where, elem)
			}
			collect(t, elem, where, into)
		case reflect.Slice:
			if elem.Elem() == reflect.TypeFor[Port]() { // intent, and plain data itself
				collect(t, elem.Elem(), where, into)
			} else if elem.Elem().Kind() != reflect.String {
				t.Errorf("%s is a %s, not plain data", where, elem)
			}
		case reflect.Map:
			if elem != reflect.TypeFor[map[string]string]() {
				t.Errorf("%s is a %s, not plain data", where, elem)
			}
		case reflect.Pointer, reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer:
			t.Errorf("%s is a %s, not plain data", where, elem)
		}
	}
}

func TestHandlesJSONNames(t *testing.T) {
	h := VMHandles{PID: 1, TapDevice: "t", BaseLoop: "b", CowLoop: "c", DMName: "n", DMDev: "d"}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"pid":1,"tap_device":"t","base_loop":"b","cow_loop":"c","dm_name":"n","dm_dev":"d"}`
	if string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}

func TestIsZero(t *testing.T) {
	if !(VMHandles{BootID: "b", LaunchedVCPU: 1, LaunchedMemoryMiB: 1, LaunchedDiskSize: 1}).IsZero() {
		t.Error("a boot id and what was launched hold nothing")
	}
	typ := reflect.TypeFor[VMHandles]()
	for i := range typ.NumField() {
		if name := typ.Field(i).Name; name == "BootID" || strings.HasPrefix(name, "Launched") {
			continue
		}
		var h VMHandles
		switch f := reflect.ValueOf(&h).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int:
			f.SetInt(1)
		case reflect.Uint64:
			f.SetUint(1)
		}
		if h.IsZero() {
			t.Errorf("%s alone counts as nothing", typ.Field(i).Name)
		}
	}
}

func TestValidateName(t *testing.T) {
	for _, ok := range []string{"a", "web", "a-b", "0", "x1", strings.Repeat("a", 63)} {
		if err := ValidateName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a\n", "../x", "0123456789ab", strings.Repeat("a", 64)} {
		if err := ValidateName(bad); CodeOf(err) != CodeInvalid || HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestID(t *testing.T) {
	seen := map[ID]bool{}
	for range 100 {
		id := NewID()
		if _, err := ParseID(string(id)); err != nil || seen[id] {
			t.Fatalf("%s: %v, seen %v", id, err, seen[id])
		}
		seen[id] = true
	}
	for _, bad := range []string{"", "0123456789a", "0123456789abc", "0123456789AB", "../456789ab", "0123456789a\n"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestErrorChain(t *testing.T) {
	cause := errors.New("cause")
	inner := Errorf(CodeNoSpace, "write x: %w", cause).WithHint("free some")
	err := fmt.Errorf("make y: %w", inner)
	if CodeOf(err) != CodeNoSpace || HintOf(err) != "free some" || !errors.Is(err, cause) || err.Error() != "make y: write x: cause" {
		t.Errorf("%v: code %s, hint %q", err, CodeOf(err), HintOf(err))
	}
	outer := Errorf(CodeUnavailable, "start: %w", err)
	if CodeOf(outer) != CodeUnavailable || HintOf(outer) != "free some" {
		t.Errorf("outer: code %s, hint %q", CodeOf(outer), HintOf(outer))
	}
	if CodeOf(cause) != CodeInternal || HintOf(nil) != "" {
		t.Error("a plain error has a code or a hint")
	}
}

func TestStageReportsItsEnd(t *testing.T) {
	var got []string
	r := Report(func(e Event) { got = append(got, e.Stage+" "+e.Status+" "+e.Text) })
	r.Stage(Event{}, "disk")(nil)
	r.Stage(Event{}, "boot")(errors.New("no"))
	Report(nil).Stage(Event{}, "x")(nil)
	if fmt.Sprint(got) != "[disk begin  disk end  boot begin  boot failed no]" {
		t.Errorf("got %q", got)
	}
}
