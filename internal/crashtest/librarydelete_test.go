package crashtest

import (
	"context"
	"fmt"
	"net/http"

	"banger/internal/api"
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
	tag := func(path, name string, force bool) func(*run) answer {
		return func(r *run) answer { return r.call("POST", path, api.TagRequest{Name: name, Force: force}) }
	}
	tagged := func(get func(r *run) error) func(*run, answer) error {
		return func(r *run, a answer) error {
			if err := get(r); err != nil && a.acked {
				return fmt.Errorf("the client was told of its second name: %w", err)
			}
			return nil
		}
	}
	return []operation{
		{name: "image tag", library: true, covers: []string{"image-tag"}, do: tag("/v1/images/"+vm.DefaultImage+"/tag", "second", false), kept: tagged(func(r *run) error {
			_, err := r.daemon.Images.Get(context.Background(), "second")
			return err
		})},
		{name: "image tag, the name moves", library: true, covers: []string{"image-tag"}, before: func(r *run) { must(r, build("second", false)(r)) },
			do: tag("/v1/images/"+vm.DefaultImage+"/tag", "second", true), kept: tagged(func(r *run) error {
				i, err := r.daemon.Images.Get(context.Background(), "second")
				if err == nil && i.Digest != imageDigest {
					err = fmt.Errorf("it stands for %s", i.Digest)
				}
				return err
			})},
		{name: "kernel tag", library: true, covers: []string{"kernel-tag"}, do: tag("/v1/kernels/"+vm.DefaultKernel+"/tag", "mine", false), kept: tagged(func(r *run) error {
			_, err := r.daemon.Kernels.Get(context.Background(), "mine")
			return err
		})},
		{name: "delete, its image was built anew", bare: true, settles: true, covers: []string{"vm-delete"}, before: func(r *run) {
			makeStopped(r)
			must(r, build(vm.DefaultImage, true)(r))
		}, do: remove, kept: func(r *run, a answer) error {
			if _, there := r.record(web); there && a.acked {
				return fmt.Errorf("the client was told that it is gone, and it is there")
			}
			return nil
		}},
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
