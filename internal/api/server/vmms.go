package server

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/vm"
)

// vmmRef is the input of everything about one VMM.
type vmmRef struct {
	Ref string `path:"ref" doc:"the VMM's name"`
}

// versionRef is the input of everything about one version of a VMM.
type versionRef struct {
	Ref     string `path:"ref" doc:"the VMM's name"`
	Version string `path:"version" doc:"as vmm list shows it"`
}

// installInput spells out ref: huma does not look into embedded fields of unexported types.
type installInput struct {
	Ref  string `path:"ref" doc:"the VMM's name"`
	Body api.InstallRequest
}

func (s *server) vmmRoutes(h huma.API) {
	huma.Register(h, op("GET", api.PathVMMs, "vmm-list", "List the VMM programs that are installed, configured or found"), func(ctx context.Context, _ *empty) (*body[[]api.VMM], error) {
		return answer(s.Programs.List(ctx))
	})
	huma.Register(h, op("GET", api.PathVMM, "vmm-show", "One VMM: the program in use, and whether VMs can be run with it"), func(ctx context.Context, in *vmmRef) (*body[api.VMMView], error) {
		return answer(s.Programs.Show(ctx, in.Ref))
	})
	huma.Register(h, op("DELETE", api.PathVMMVersion, "vmm-delete", "Delete an installed version of a VMM"), func(ctx context.Context, in *versionRef) (*empty, error) {
		if err := s.Programs.Delete(ctx, in.Ref, in.Version); err != nil {
			return nil, fail(err)
		}
		return nil, nil
	})
	huma.Register(h, s.streamed("POST", api.PathVMMInstall, "vmm-install", "Install a VMM's programs"),
		func(_ context.Context, in *installInput) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				v, err := s.Programs.Install(ctx, in.Ref, in.Body, report)
				return api.Message{VMM: &v}, err
			}), nil
		})
}
