package server

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// stopInput spells out ref: huma does not look into embedded fields of unexported types.
type stopInput struct {
	Ref  string           `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
	Body *api.StopRequest `required:"false"`
}

// how is what it asks for; nothing asked is a gentle stop.
func (in *stopInput) how() (force bool, grace time.Duration) {
	if in.Body == nil {
		return false, 0
	}
	return in.Body.Force, time.Duration(in.Body.GraceMs) * time.Millisecond
}

type deleteInput struct {
	Ref string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
	If  string `query:"if" doc:"only a VM of which that is so" enum:"stopped"`
}

type signalInput struct {
	Ref  string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
	Body guest.SignalRequest
}

type waitInput struct {
	Ref string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
	For string `query:"for" doc:"what to wait for" enum:"ready,stopped,gone" default:"stopped"`
}

func (s *server) vmRoutes(h huma.API) {
	e := s.Engine
	huma.Register(h, op("GET", api.PathVMs, "vm-list", "List VMs"), func(ctx context.Context, _ *empty) (*body[[]api.VMListed], error) {
		return answer(s.listed(ctx))
	})
	huma.Register(h, op("GET", api.PathSummary, "vm-summaries", "List VMs, a few words of each"), func(ctx context.Context, _ *empty) (*body[[]api.VMSummary], error) {
		records, err := e.Store.SharedVMs(ctx)
		all := make([]api.VMSummary, 0, len(records))
		for _, r := range records {
			s := api.SummaryOf(e.Seen(r))
			s.Silent, s.Pending = e.Silent(ctx, r, 0), e.Pending(r)
			all = append(all, s)
		}
		return answer(all, err)
	})
	huma.Register(h, op("GET", api.PathVM, "vm-show", "One VM: the record, its handles, what was just seen"), func(ctx context.Context, in *ref) (*body[api.VMView], error) {
		return answer(s.view(ctx, in.Ref))
	})
	huma.Register(h, op("GET", api.PathVMStats, "vm-stats", "A VM's load, as its guest and its host see it"), func(ctx context.Context, in *ref) (*body[api.VMStats], error) {
		return answer(e.Stats(ctx, in.Ref))
	})
	huma.Register(h, op("GET", api.PathVMTop, "vm-top", "A guest's processes"), func(ctx context.Context, in *ref) (*body[guest.Processes], error) {
		return answer(e.GuestProcesses(ctx, in.Ref))
	})
	huma.Register(h, op("GET", api.PathVMPorts, "vm-ports", "What a VM publishes, and what listens in its guest"), func(ctx context.Context, in *ref) (*body[api.VMPorts], error) {
		return answer(e.Ports(ctx, in.Ref))
	})
	huma.Register(h, op("GET", api.PathVMJobs, "vm-jobs", "A guest's jobs: commands that were run in it, with what is kept of their output"), func(ctx context.Context, in *ref) (*body[guest.Jobs], error) {
		return answer(e.GuestJobs(ctx, in.Ref))
	})
	huma.Register(h, op("POST", api.PathSignal, "vm-signal", "Send a job a signal"), func(ctx context.Context, in *signalInput) (*empty, error) {
		if err := e.SignalJob(ctx, in.Ref, in.Body); err != nil {
			return nil, fail(err)
		}
		return nil, nil
	})
	huma.Register(h, s.streamed("POST", api.PathVMs, "vm-create", "Make a VM, and start it where asked"),
		func(_ context.Context, in *struct{ Body api.CreateRequest }) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				watch := e.Watch()
				defer watch.Stop()
				r, err := e.Create(ctx, in.Body, report)
				if err == nil && in.Body.Start && !in.Body.NoWait {
					// The record first: a client that goes away now must know what it began.
					report.Send(vm.Event{VM: r.ID, Name: r.Name, Kind: "state", State: r.State})
					r, err = watch.Started(ctx, r.ID, report)
				}
				return api.Message{VM: &r}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathVMStart, "vm-start", "Start a VM"),
		func(_ context.Context, in *ref) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				watch := e.Watch()
				defer watch.Stop()
				r, err := e.Start(ctx, in.Ref)
				if err == nil {
					r, err = watch.Started(ctx, r.ID, report)
				}
				return api.Message{VM: &r}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathVMStop, "vm-stop", "Stop a VM"),
		func(_ context.Context, in *stopInput) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				force, grace := in.how()
				watch := e.Watch()
				defer watch.Stop()
				r, err := e.Stop(ctx, in.Ref, force, grace)
				if err == nil {
					r, err = watch.Stopped(ctx, r.ID, report)
				}
				return api.Message{VM: &r}, err
			}), nil
		})
	huma.Register(h, s.streamed("POST", api.PathRestart, "vm-restart", "Stop a VM, and start it again"),
		func(_ context.Context, in *stopInput) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				force, grace := in.how()
				r, err := e.Restart(ctx, in.Ref, force, grace, report)
				return api.Message{VM: &r}, err
			}), nil
		})
	s.changeRoutes(h)
	huma.Register(h, op("GET", api.PathVMWait, "vm-wait", "Wait until a VM is ready, stopped or gone"), func(ctx context.Context, in *waitInput) (*body[vm.VMRecord], error) {
		return answer(e.Wait(ctx, in.Ref, in.For))
	})
	huma.Register(h, s.streamed("DELETE", api.PathVM, "vm-delete", "Delete a VM with everything of it"),
		func(_ context.Context, in *deleteInput) (*huma.StreamResponse, error) {
			return stream(func(ctx context.Context, report vm.Report) (api.Message, error) {
				watch := e.Watch()
				defer watch.Stop()
				remove := e.Delete
				if in.If != "" {
					remove = e.DeleteStopped
				}
				r, err := remove(ctx, in.Ref)
				if err == nil {
					err = watch.Gone(ctx, r.ID, report)
				}
				return api.Message{VM: &r}, err
			}), nil
		})
}

func (s *server) listed(ctx context.Context) ([]api.VMListed, error) {
	records, err := s.Engine.Store.VMs(ctx)
	all := make([]api.VMListed, 0, len(records))
	for _, r := range records {
		all = append(all, api.VMListed{VMRecord: s.Engine.Seen(r), Pending: s.Engine.Pending(r)})
	}
	return all, err
}

// lookWait is how long one VM's guest is given to show that it lives. A list waits for none.
const lookWait = time.Second

func (s *server) view(ctx context.Context, name string) (api.VMView, error) {
	r, err := s.Engine.Store.VMByRef(ctx, name)
	if err != nil {
		return api.VMView{}, err
	}
	silent := s.Engine.Silent(ctx, r, lookWait)
	observed := s.Engine.Observe(r)
	observed.Silent = silent
	return api.VMView{
		VMRecord: s.Engine.Seen(r), Handles: s.Engine.Handles.Get(r.ID), Observed: observed,
		Pending: s.Engine.Pending(r), VMDir: r.Runtime.VMDir, SSH: s.Engine.SSHAccess(r), Ports: s.Engine.Published(r), VMMWhy: s.Engine.WhyVMM(ctx, r),
		Speed: s.Engine.Speed(ctx, r, observed),
	}, nil
}
