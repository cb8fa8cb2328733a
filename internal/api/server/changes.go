package server

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/vm"
)

// changeRoutes change what a VM is.
func (s *server) changeRoutes(h huma.API) {
	e := s.Engine
	huma.Register(h, s.streamed("PATCH", api.PathVM, "vm-set", "Change what a VM is"),
		func(_ context.Context, in *struct {
			Ref  string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
			Body api.SetRequest
		}) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, _ vm.Report) (api.Message, error) {
				r, pending, err := e.Set(ctx, in.Ref, in.Body)
				return api.Message{VM: &r, Pending: pending}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathRename, "vm-rename", "Give a VM another name"),
		func(_ context.Context, in *struct {
			Ref  string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
			Body api.RenameRequest
		}) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, _ vm.Report) (api.Message, error) {
				r, told, err := e.Rename(ctx, in.Ref, in.Body.Name)
				m := api.Message{VM: &r}
				if !told {
					m.Pending = []string{api.PendingHostname}
				}
				return m, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathVMPorts, "vm-ports-change", "Publish ports of a VM, or no longer"),
		func(_ context.Context, in *struct {
			Ref  string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
			Body api.PortsRequest
		}) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, _ vm.Report) (api.Message, error) {
				r, err := e.ChangePorts(ctx, in.Ref, in.Body)
				return api.Message{VM: &r}, err
			}), nil
		})
	for _, o := range []struct {
		path, id, summary string
		do                func(context.Context, string) (vm.VMRecord, error)
	}{
		{api.PathPause, "vm-pause", "Halt a VM's processors", e.Pause},
		{api.PathResume, "vm-resume", "Let a paused VM go on", e.Resume},
	} {
		huma.Register(h, s.streamed("POST", o.path, o.id, o.summary), func(_ context.Context, in *ref) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, _ vm.Report) (api.Message, error) {
				r, err := o.do(ctx, in.Ref)
				return api.Message{VM: &r}, err
			}), nil
		})
	}
	huma.Register(h, s.streamed("POST", api.PathCommit, "vm-commit", "Make an image of a stopped VM's system disk"),
		func(_ context.Context, in *struct {
			Ref  string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
			Body api.CommitRequest
		}) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				i, err := e.CommitVM(ctx, in.Ref, in.Body, report)
				return api.Message{Image: &i}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathReset, "vm-reset", "Make a VM's system disk anew"),
		func(_ context.Context, in *struct {
			Ref  string            `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
			Body *api.ResetRequest `required:"false"`
		}) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				watch := e.Watch()
				defer watch.Stop()
				r, err := e.Reset(ctx, in.Ref, in.Body != nil && in.Body.Force)
				if err == nil {
					r, err = watch.Reset(ctx, r.ID, report)
				}
				return api.Message{VM: &r}, err
			}), nil
		})
}
