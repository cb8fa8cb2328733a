package cli

import (
	"net/http"
	"strings"

	"banger/internal/vm"
)

// Beside the default ones there are a test-a and a test-b, which no VM is made from.
func (f *fake) listImages(w http.ResponseWriter, _ *http.Request) {
	a, b := fakeImage, fakeImage
	a.Name, b.Name = "test-a", "test-b"
	answer(w, []vm.Image{fakeImage, a, b})
}

func (f *fake) listKernels(w http.ResponseWriter, _ *http.Request) {
	a, b := fakeKernel, fakeKernel
	a.Name, b.Name = "test-a", "test-b"
	answer(w, []vm.Kernel{fakeKernel, a, b})
}

// deleteFrom refuses the default ones while there are VMs.
func (f *fake) deleteFrom(kind, why string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		var users []string
		for _, v := range f.vms {
			users = append(users, v.Name)
		}
		f.mu.Unlock()
		switch name := r.PathValue("ref"); {
		case (name == vm.DefaultImage || name == vm.DefaultKernel) && len(users) > 0:
			refuse(w, vm.Errorf(vm.CodeConflict, "delete %s %s: %s: %s", kind, name, why, strings.Join(users, ", ")).WithHint("delete these VMs first: banger vm delete NAME"))
		case name == vm.DefaultImage, name == vm.DefaultKernel, strings.HasPrefix(name, "test-"):
			w.WriteHeader(http.StatusNoContent)
		default:
			refuse(w, vm.Errorf(vm.CodeNotFound, "delete %s %s: there is none of that name", kind, name).WithHint("banger %s list shows those there are", kind))
		}
	}
}
