package crashtest

import (
	"errors"
	"os"
	"path/filepath"
)

// makeScraps is a VM that runs, and half-written files of each kind: what a daemon leaves that dies while it writes one. A
// crash at a point leaves none of most kinds: one act writes the whole file.
func makeScraps(r *run) {
	makeRunning(r)
	v, _ := r.record(web)
	r.end()
	p := r.w.paths
	for _, path := range []string{
		filepath.Join(v.Runtime.VMDir, ".handles.json12345"), filepath.Join(v.Runtime.VMDir, ".work.ext4.tmp-12345"),
		filepath.Join(p.Cache, ".probe.json12345"), filepath.Join(p.Initramfs(), ".a.img12345"), filepath.Join(filepath.Dir(p.SSHKey()), ".id_ed25519-12345"),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("half"), 0o600)); err != nil {
			r.w.t.Error(err)
		}
	}
}

// makeDamaged is a Firecracker whose program lost its content.
func makeDamaged(r *run) {
	must(r, install(r))
	if err := os.Truncate(filepath.Join(r.w.paths.VMMs(), "firecracker", "1.13.99", "firecracker"), 0); err != nil {
		r.w.t.Error(err)
	}
}

// leftoverOperations are about what nobody needs any more.
func leftoverOperations(running func(*run, answer) error) []operation {
	return []operation{
		{name: "daemon start, half-written files", boots: true, before: makeScraps, kept: running},
	}
}
