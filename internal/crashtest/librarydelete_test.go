package crashtest

import (
	"context"
	"fmt"
	"net/http"

	"banger/internal/vm"
)

// libraryDeletes are the ends of what images and kernels are made by. Those that VMs stand on are beside them.
func libraryDeletes() []operation {
	gone := func(get func(r *run) error) func(*run, answer) error {
		return func(r *run, a answer) error {
			switch err := get(r); {
			case vm.CodeOf(err) == vm.CodeNotFound:
				return nil
			case err == nil && a.acked:
				return fmt.Errorf("the client was told that it is gone, and it is there")
			default:
				return err
			}
		}
	}
	image := gone(func(r *run) error { _, err := r.daemon.Images.Get(context.Background(), "second"); return err })
	kernel := gone(func(r *run) error { _, err := r.daemon.Kernels.Get(context.Background(), "mine"); return err })
	call := func(path string) func(*run) answer {
		return func(r *run) answer { return r.call(http.MethodDelete, path, struct{}{}) }
	}
	return []operation{
		{name: "image delete", library: true, covers: []string{"image-delete"}, before: func(r *run) { must(r, build("second", false)(r)) },
			do: call("/v1/images/second"), kept: image},
		{name: "image delete, another name has it", library: true, covers: []string{"image-delete"}, before: func(r *run) {
			must(r, build("second", false)(r))
			must(r, build("third", false)(r))
		}, do: call("/v1/images/second"), kept: image},
		{name: "kernel delete", library: true, covers: []string{"kernel-delete"}, before: func(r *run) {
			must(r, importKernel(r))
			k, err := r.daemon.Kernels.Get(context.Background(), "mine")
			if err == nil { // with its initramfs
				_, err = r.daemon.Kernels.Boot(r.ctx, k.Digest)
			}
			must(r, answer{acked: true, err: err})
		}, do: call("/v1/kernels/mine"), kept: kernel},
	}
}
