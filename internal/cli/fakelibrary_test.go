package cli

import (
	"cmp"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/api"
	"banger/internal/vm"
)

// Beside the default ones there are a test-a and a test-b, which no VM is made from.
func (f *fake) listImages(w http.ResponseWriter, r *http.Request) {
	a, b := fakeImage, fakeImage
	a.Name, b.Name = "test-a", "test-b"
	all := []vm.Image{fakeImage, a, b}
	if r.FormValue("unused") == "true" {
		all = all[f.inUse():]
	}
	answer(w, all)
}

func (f *fake) listKernels(w http.ResponseWriter, r *http.Request) {
	a, b := fakeKernel, fakeKernel
	a.Name, b.Name = "test-a", "test-b"
	all := []vm.Kernel{fakeKernel, a, b}
	if r.FormValue("unused") == "true" {
		all = all[f.inUse():]
	}
	answer(w, all)
}

// inUse is 1 while there are VMs: the first of each list then is theirs.
func (f *fake) inUse() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return min(len(f.vms), 1)
}

// showEntry shows the default ones, which have a second name and all VMs.
func (f *fake) showEntry(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		names, vms := []string{"base", r.PathValue("ref")}, f.users()
		switch r.PathValue("ref") {
		case vm.DefaultImage:
			answer(w, api.ImageView{Image: fakeImage, Names: names, VMs: vms, Path: "/images/root.ext4"})
		case vm.DefaultKernel:
			answer(w, api.KernelView{Kernel: fakeKernel, Names: names, VMs: vms, Path: "/kernels/1"})
		default:
			refuse(w, vm.Errorf(vm.CodeNotFound, "no %s named %q", kind, r.PathValue("ref")))
		}
	}
}

// tagEntry refuses the name test-a, unless it is to move.
func tagEntry(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var t api.TagRequest
		if err := json.NewDecoder(r.Body).Decode(&t); err != nil || t.Name == "" {
			refuse(w, vm.Errorf(vm.CodeInvalid, "%v", err))
			return
		}
		if t.Name == "test-a" && !t.Force {
			refuse(w, vm.Errorf(vm.CodeExists, "tag %s %s as test-a: it exists", kind, r.PathValue("ref")).WithHint("--force gives it the name"))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *fake) users() (users []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.vms {
		users = append(users, v.Name)
	}
	return users
}

// deleteFrom refuses the default ones while there are VMs.
func (f *fake) deleteFrom(kind, why string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		users := f.users()
		switch name := r.PathValue("ref"); {
		case (name == vm.DefaultImage || name == vm.DefaultKernel) && len(users) > 0:
			refuse(w, vm.Errorf(vm.CodeConflict, "delete %s %s: %s: %s", kind, name, why, strings.Join(users, ", ")).WithHint("delete these VMs first: banger vm delete NAME"))
		case name == "test-b" && r.FormValue("digest") != "":
			refuse(w, vm.Errorf(vm.CodeConflict, "delete %s test-b: it was replaced meanwhile", kind))
		case name == vm.DefaultImage, name == vm.DefaultKernel, strings.HasPrefix(name, "test-"):
			w.WriteHeader(http.StatusNoContent)
		default:
			refuse(w, vm.Errorf(vm.CodeNotFound, "delete %s %s: there is none of that name", kind, name).WithHint("banger %s list shows those there are", kind))
		}
	}
}

// importImage looks no further than what the file is called, but for one that has no name.
func importImage(w http.ResponseWriter, r *http.Request) {
	var b api.ImageImportRequest
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		refuse(w, vm.Errorf(vm.CodeInvalid, "%v", err))
		return
	}
	i := fakeImage
	i.Name = b.Name
	if b.Name == "" {
		i.Name, _, _ = strings.Cut(filepath.Base(b.Source), ".")
	}
	switch {
	case !filepath.IsAbs(b.Source):
		refuse(w, vm.Errorf(vm.CodeInvalid, "%s is relative", b.Source))
	case strings.HasSuffix(b.Source, ".txt"), b.Title != "" && !readsAs(b.Source, "a tar"):
		refuse(w, vm.Errorf(vm.CodeInvalid, "import image %s from %s: it is of no kind that is known", i.Name, cmp.Or(b.Title, b.Source)).WithHint("an image is imported from a tar"))
	case i.Name == "test-a" && !b.Force:
		refuse(w, vm.Errorf(vm.CodeExists, "import image test-a from %s: an image named test-a exists", b.Source).WithHint("--name gives another name"))
	default:
		stream(w, api.Message{Event: stageEvent(nil, "image", "begin")}, api.Message{Event: stageEvent(nil, "image", "end")}, api.Message{Done: true, Image: &i})
	}
}

// commit refuses a VM that is not stopped.
func (f *fake) commit(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	var b api.CommitRequest
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil || b.Image == "" {
		refuse(w, vm.Errorf(vm.CodeInvalid, "image name %q is not usable", b.Image))
		return
	}
	if record.State != vm.StateStopped {
		refuse(w, vm.Errorf(vm.CodeConflict, "commit VM %s: it is %s, and its system disk in use", record.Name, record.State).WithHint("banger vm stop %s, then commit it", record.Name))
		return
	}
	i := fakeImage
	i.Name = b.Image
	stream(w, api.Message{Event: stageEvent(nil, "image", "begin")}, api.Message{Event: stageEvent(nil, "image", "end")}, api.Message{Done: true, Image: &i})
}

func readsAs(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(b)) == text
}
