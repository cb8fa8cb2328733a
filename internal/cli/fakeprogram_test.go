package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"

	"banger/internal/api"
	"banger/internal/vm"
)

// installedVMM is a version that the fake daemon has installed: any.
func (f *fake) installedVMM(version string) api.VMM {
	dir := filepath.Join(f.p.VMMs(), "firecracker", version)
	return api.VMM{
		Name: "firecracker", Version: version, Origin: api.OriginInstalled, InUse: true, Path: filepath.Join(dir, "firecracker"), Digest: "sha256:0123456789abcdef",
		Jailer: filepath.Join(dir, "jailer"), JailerDigest: "sha256:fedcba9876543210", Source: "a fake", Checked: api.CheckedPinned, InstalledAt: longAgo,
	}
}

func (f *fake) listVMMs(w http.ResponseWriter, _ *http.Request) {
	damaged := f.installedVMM("1.11.0")
	damaged.InUse, damaged.Error = false, "the program was changed since it was installed"
	answer(w, []api.VMM{f.installedVMM("1.12.1"), damaged, {Name: "firecracker", Origin: api.OriginPath, Path: "/usr/bin/firecracker"}})
}

func (f *fake) showVMM(w http.ResponseWriter, r *http.Request) {
	if name := r.PathValue("ref"); name != "firecracker" {
		refuse(w, vm.Errorf(vm.CodeNotFound, "no VMM named %q can be installed", name).WithHint("there is firecracker"))
		return
	}
	v := api.VMMView{VMM: f.installedVMM("1.12.1"), Why: "KVM opens but does not work", Hint: "switch it on", Supported: "1.8 or later", Tested: "1.12.1"}
	if os.Getenv("FAKE_DAEMON") == "bare" {
		v.VMM, v.Why = api.VMM{Name: "firecracker"}, "it is not installed"
	}
	answer(w, v)
}

func (f *fake) installVMM(w http.ResponseWriter, r *http.Request) {
	var b api.InstallRequest
	json.NewDecoder(r.Body).Decode(&b)
	if name := r.PathValue("ref"); name != "firecracker" {
		refuse(w, vm.Errorf(vm.CodeNotFound, "no VMM named %q can be installed", name).WithHint("there is firecracker"))
		return
	}
	if b.From != "" && filepath.IsAbs(b.From) {
		if _, err := os.Stat(b.From); err != nil {
			refuse(w, err)
			return
		}
	}
	stream(w, api.Message{Event: stageEvent(nil, "vmm", "begin")})
	if len(b.SHA256) > 0 && b.SHA256[0] == "bad" {
		stream(w, api.Message{Event: stageEvent(nil, "vmm", "failed")},
			api.Message{Done: true, Error: &api.ErrorBody{Code: vm.CodeInvalid, Message: "install firecracker: it has SHA-256 1, --sha256 says bad", Hint: "nothing was installed"}})
		return
	}
	if b.Version == "" {
		b.Version = "1.12.1"
	}
	v := f.installedVMM(b.Version)
	if b.Version != "1.12.1" {
		v.Checked, v.InUse = api.CheckedSums, false
	}
	stream(w, api.Message{Event: stageEvent(nil, "vmm", "end")}, api.Message{Done: true, VMM: &v})
}

func (f *fake) deleteVMM(w http.ResponseWriter, r *http.Request) {
	switch name, version := r.PathValue("ref"), r.PathValue("version"); {
	case name != "firecracker":
		refuse(w, vm.Errorf(vm.CodeNotFound, "no VMM named %q can be installed", name).WithHint("there is firecracker"))
	case version == "1.12.1":
		refuse(w, vm.Errorf(vm.CodeConflict, "delete firecracker 1.12.1: VMs are started with it: web").WithHint("delete these VMs first"))
	case version != "1.11.0" && version != "1.10.0":
		refuse(w, vm.Errorf(vm.CodeNotFound, "delete firecracker %s: it is not installed", version))
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
