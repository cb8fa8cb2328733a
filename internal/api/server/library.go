package server

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/image"
	"banger/internal/vm"
)

// libraryRef is the input of everything about one image or kernel.
type libraryRef struct {
	Ref string `path:"ref" doc:"its name"`
}

type libraryList struct {
	Unused bool `query:"unused" doc:"only those that no VM has"`
}

type libraryDelete struct {
	Ref    string `path:"ref" doc:"its name"`
	Digest string `query:"digest" doc:"only if the name has this digest"`
}

type libraryTag struct {
	Ref  string `path:"ref" doc:"its name"`
	Body api.TagRequest
}

func (s *server) libraryRoutes(h huma.API) {
	huma.Register(h, op("GET", api.PathImages, "image-list", "List images"), func(ctx context.Context, in *libraryList) (*body[[]vm.Image], error) {
		if in.Unused {
			return answer(s.Images.Unused(ctx))
		}
		return answer(s.Images.List(ctx))
	})
	huma.Register(h, op("GET", api.PathKernels, "kernel-list", "List kernels"), func(ctx context.Context, in *libraryList) (*body[[]vm.Kernel], error) {
		if in.Unused {
			return answer(s.Kernels.Unused(ctx))
		}
		return answer(s.Kernels.List(ctx))
	})
	huma.Register(h, op("GET", api.PathImage, "image-show", "One image: its names, and the VMs that have it"), func(ctx context.Context, in *libraryRef) (*body[api.ImageView], error) {
		return answer(s.Images.Show(ctx, in.Ref))
	})
	huma.Register(h, op("POST", api.PathImageTag, "image-tag", "Give an image a second name"), func(ctx context.Context, in *libraryTag) (*empty, error) {
		if err := s.Images.Tag(ctx, in.Ref, in.Body.Name, in.Body.Force); err != nil {
			return nil, fail(err)
		}
		return nil, nil
	})
	huma.Register(h, op("DELETE", api.PathImage, "image-delete", "Delete an image that no VM stands on"), func(ctx context.Context, in *libraryDelete) (*empty, error) {
		if err := s.Images.Delete(ctx, in.Ref, in.Digest); err != nil {
			return nil, fail(err)
		}
		return nil, nil
	})
	huma.Register(h, op("GET", api.PathKernel, "kernel-show", "One kernel: its names, and the VMs that have it"), func(ctx context.Context, in *libraryRef) (*body[api.KernelView], error) {
		return answer(s.Kernels.Show(ctx, in.Ref))
	})
	huma.Register(h, op("POST", api.PathKernelTag, "kernel-tag", "Give a kernel a second name"), func(ctx context.Context, in *libraryTag) (*empty, error) {
		if err := s.Kernels.Tag(ctx, in.Ref, in.Body.Name, in.Body.Force); err != nil {
			return nil, fail(err)
		}
		return nil, nil
	})
	huma.Register(h, op("DELETE", api.PathKernel, "kernel-delete", "Delete a kernel that no VM boots from"), func(ctx context.Context, in *libraryDelete) (*empty, error) {
		if err := s.Kernels.Delete(ctx, in.Ref, in.Digest); err != nil {
			return nil, fail(err)
		}
		return nil, nil
	})
	huma.Register(h, s.streamed("POST", api.PathBuild, "image-build", "Build an image from Debian packages"),
		func(_ context.Context, in *struct{ Body api.BuildRequest }) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				b := in.Body
				o := image.BuildOptions{Recipe: b.Recipe, Name: b.Name, Packages: b.Packages, Mirror: b.Mirror, Force: b.Force}
				if b.Script != "" {
					i, err := s.Engine.BuildScripted(ctx, o, b.Script, report)
					return api.Message{Image: &i}, err
				}
				i, err := s.Images.Build(ctx, o, report)
				return api.Message{Image: &i}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathImageImport, "image-import", "Make an image of a file: a tar, an ext4 file system, a qcow2 disk"),
		func(_ context.Context, in *struct{ Body api.ImageImportRequest }) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				i, err := s.Images.Import(ctx, image.ImportOptions{Source: in.Body.Source, Title: in.Body.Title, Name: in.Body.Name, Force: in.Body.Force}, report)
				return api.Message{Image: &i}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathImport, "kernel-import", "Import a kernel"),
		func(_ context.Context, in *struct{ Body api.ImportRequest }) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				k, err := s.Kernels.Import(ctx, in.Body.Name, in.Body.Source, report)
				return api.Message{Kernel: &k}, err
			}), nil
		})
}
