package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"

	"banger/internal/api"
)

// objects are what the fake daemon has on its host. FAKE_DAEMON=clean has no orphan.
func (f *fake) objects() []api.HostObject {
	all := []api.HostObject{
		{Kind: "process", Name: "4711", More: "qemu-system-x86_64", Status: api.ObjectOwned, VM: "00000000000a", Owner: "web", Why: "VM web is running"},
		{Kind: "tap device", Name: "bt00000000000c", Status: api.ObjectForeign, VM: "00000000000c", Why: "it is a port of another's bridge"},
	}
	if os.Getenv("FAKE_DAEMON") == "clean" {
		return all
	}
	return append(all,
		api.HostObject{Kind: "loop device", Name: "/r/vms/b/system", More: "/dev/loop3", Status: api.ObjectOrphan, VM: "00000000000b", Why: "no VM has the id"},
		api.HostObject{Kind: "VM's directory", Name: "/r/vms/b", Status: api.ObjectOrphan, VM: "00000000000b", Holds: "its disks, 2.0 MiB", Why: "no VM has the id"},
		api.HostObject{Kind: "VM's directory", Name: "/r/vms/d", Status: api.ObjectOrphan, VM: "00000000000d", Why: "no VM has the id", Kept: "the database is younger"},
	)
}

func (f *fake) listObjects(w http.ResponseWriter, _ *http.Request) { answer(w, f.objects()) }

// fixObjects removes what was named. FAKE_DAEMON=stuck cannot.
func (f *fake) fixObjects(w http.ResponseWriter, r *http.Request) {
	var b api.FixRequest
	json.NewDecoder(r.Body).Decode(&b)
	done := []api.HostObject{}
	for _, o := range f.objects() {
		if o.Status != api.ObjectOrphan || !slices.Contains(b.Objects, api.ObjectName{Kind: o.Kind, Name: o.Name}) {
			continue
		}
		switch {
		case os.Getenv("FAKE_DAEMON") == "stuck" && o.Kind == "loop device":
			o.Error = "it is in use by mount /mnt"
		case os.Getenv("FAKE_DAEMON") == "stuck":
			o.Kept = "its loop device could not be removed, and may need it"
		default:
			o.Removed = true
		}
		done = append(done, o)
	}
	answer(w, done)
}
