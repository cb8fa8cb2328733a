package api

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// promised are the keys that scripts may rely on in what --json prints: of each object they are there whatever it is,
// zero values included. A key may be added; one that is renamed, dropped or left out when empty breaks somebody, and
// wants a CHANGELOG line.
var promised = []struct {
	of    string
	value any
	keys  string
}{
	{"vm list", vm.VMRecord{}, "id name state image kernel vmm created_at spec runtime"},
	{"vm show", VMView{}, "id name state image kernel vmm created_at spec runtime handles observed vm_dir"},
	{"image list", vm.Image{}, "name digest size created_at"},
	{"kernel list", vm.Kernel{}, "name digest size created_at"},
	{"image show", ImageView{}, "name digest size created_at names vms path"},
	{"kernel show", KernelView{}, "name digest size created_at names vms path"},
	{"vmm list", VMM{}, "name version origin in_use path digest"},
	{"vmm show", VMMView{}, "name version origin in_use path digest usable why supported tested"},
	{"vm jobs", guest.Job{}, "id command state code started_at keep clients output kept"},
	{"doctor", Problem{}, "code severity text hint"},
	{"doctor --leaks", HostObject{}, "kind name status owner why"},
	{"daemon status", Status{}, "pid version socket database root"},
}

// object is v as a script sees it.
func object(t *testing.T, v any) map[string]json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestPromisedKeys(t *testing.T) {
	for _, p := range promised {
		have := object(t, p.value)
		for _, key := range strings.Fields(p.keys) {
			if _, ok := have[key]; !ok {
				t.Errorf("%s --json: no %q in %s", p.of, key, reflect.TypeOf(p.value))
			}
		}
	}
}

// TestPromisedForms: the forms of the values that are promised beside their keys.
func TestPromisedForms(t *testing.T) {
	created := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, v := range []any{vm.VMRecord{CreatedAt: created}, vm.Image{CreatedAt: created}, vm.Kernel{CreatedAt: created}} {
		if got := string(object(t, v)["created_at"]); got != `"2024-02-03T04:05:06Z"` {
			t.Errorf("%T: created_at is %s, not RFC 3339", v, got)
		}
	}
	states := []vm.State{vm.StateStopped, vm.StateStarting, vm.StateRunning, vm.StateStopping, vm.StateRemoving, vm.StateError, vm.StatePaused}
	if want := []vm.State{"stopped", "starting", "running", "stopping", "removing", "error", "paused"}; !slices.Equal(states, want) {
		t.Errorf("states are %q, want %q", states, want)
	}
	if got := string(object(t, vm.VMRecord{State: vm.StateRunning})["state"]); got != `"running"` {
		t.Errorf("a state is written %s", got)
	}
	if got := string(object(t, VMView{})["handles"]); got != "{}" {
		t.Errorf("handles of a VM that holds nothing are %s: zero values are to be left out", got)
	}
	held := VMView{Handles: vm.VMHandles{PID: 1, TapDevice: "t", BaseLoop: "b", CowLoop: "c", DMName: "n", DMDev: "d"}}
	if got, want := string(object(t, held)["handles"]), `{"pid":1,"tap_device":"t","base_loop":"b","cow_loop":"c","dm_name":"n","dm_dev":"d"}`; got != want {
		t.Errorf("handles are %s, want %s", got, want)
	}
}

// TestShowIsTheRecordAndMore: no key of the record is hidden in `vm show` by one of the view's own.
func TestShowIsTheRecordAndMore(t *testing.T) {
	record := vm.VMRecord{ID: "0123456789ab", Name: "web", Runtime: vm.VMRuntime{VMDir: "/d"}}
	show := object(t, VMView{VMRecord: record, VMDir: "/d"})
	for key, value := range object(t, record) {
		if got := string(show[key]); got != string(value) {
			t.Errorf("vm show: %s is %s, vm list has %s", key, got, value)
		}
	}
}
