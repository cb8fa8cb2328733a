package server

import (
	"context"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Inventory is what the server needs of internal/inventory.
type Inventory interface {
	List(ctx context.Context) ([]inventory.Finding, error)
	Fix(ctx context.Context, named func(kind, name string) bool, discard ...vm.ID) ([]inventory.Outcome, error)
}

func (s *server) objectRoutes(h huma.API) {
	huma.Register(h, op("GET", api.PathObjects, "object-list", "List what of the host carries banger's mark, and whose it is"),
		func(ctx context.Context, _ *empty) (*body[[]api.HostObject], error) {
			found, err := s.Inventory.List(ctx)
			if err != nil {
				return nil, fail(lookFailed(err, "nothing is listed: what holds a thing may not have been seen"))
			}
			out := make([]api.HostObject, 0, len(found))
			for _, f := range found {
				out = append(out, objectOf(f))
			}
			return answer(out, nil)
		})
	huma.Register(h, op("POST", api.PathFix, "object-fix", "Remove orphans"),
		func(ctx context.Context, in *struct{ Body api.FixRequest }) (*body[[]api.HostObject], error) {
			done, err := s.Inventory.Fix(ctx, func(kind, name string) bool {
				return slices.Contains(in.Body.Objects, api.ObjectName{Kind: kind, Name: name})
			}, in.Body.Discard...)
			if err != nil {
				return nil, fail(lookFailed(err, "nothing was removed"))
			}
			out := make([]api.HostObject, 0, len(done))
			for _, d := range done {
				o := objectOf(d.Finding)
				o.Removed = d.Removed
				if d.Err != nil {
					o.Error = d.Err.Error()
				}
				s.Log.Info("orphan", "kind", o.Kind, "name", o.Name, "why", o.Why, "removed", o.Removed, "kept", o.Kept, "error", o.Error)
				out = append(out, o)
			}
			return answer(out, nil)
		})
}

// lookFailed says what came of a look that is not whole, and may have missed who needs what: nothing.
func lookFailed(err error, hint string) error {
	if h := vm.HintOf(err); h != "" {
		hint += "; " + h
	}
	return vm.Errorf(vm.CodeOf(err), "look for what banger has on this host: %w", err).WithHint("%s", hint)
}

func objectOf(f inventory.Finding) api.HostObject {
	return api.HostObject{Kind: f.Kind, Name: f.Name, Status: string(f.Status), Owner: f.Owner, Why: f.Why,
		More: f.More, VM: f.VM, Holds: f.Holds, Kept: f.Kept}
}
