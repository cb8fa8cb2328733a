package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"banger/internal/host/logfile"
	"banger/internal/vm"
)

// logs answers with a guest's console. Following it, it waits for a VM's first start, and ends when the VM is deleted.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	rec, err := s.Engine.Store.VMByRef(r.Context(), r.PathValue("ref"))
	if err != nil {
		writeError(w, err)
		return
	}
	o := logfile.ReadOptions{Tail: -1, Follow: r.URL.Query().Get("follow") == "1"}
	if t := r.URL.Query().Get("tail"); t != "" {
		if o.Tail, err = strconv.Atoi(t); err != nil || o.Tail < 0 {
			writeError(w, vm.Errorf(vm.CodeInvalid, "tail %q is not a number of lines", t))
			return
		}
	}
	if rec.Runtime.LogPath == "" {
		writeError(w, vm.Errorf(vm.CodeCorrupt, "find the console of VM %s: %s", rec.Name, rec.Runtime.LastError))
		return
	}
	ctx := r.Context()
	if o.Follow {
		var end context.CancelFunc
		ctx, end = context.WithCancel(ctx)
		defer end()
		if err := s.whileThere(ctx, rec.ID, end); err != nil {
			writeError(w, err)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &begun{w: flushing{w}}
	err = logfile.Read(ctx, rec.Runtime.LogPath, o, out)
	switch {
	case err == nil || ctx.Err() != nil:
	case !out.yes:
		writeError(w, fmt.Errorf("read the console of VM %s: %w", rec.Name, err))
	default:
		s.Log.Warn("read a console log", "vm", rec.Name, "error", err)
	}
}

// whileThere calls end when the VM is gone, or the engine closes. It must be there now.
func (s *server) whileThere(ctx context.Context, id vm.ID, end func()) error {
	events, err := s.Engine.Events(ctx, string(id))
	if err != nil {
		return err
	}
	go func() {
		defer end()
		for e := range events { // closed with ctx
			if e.Kind == "gone" {
				return
			}
		}
	}()
	return nil
}

// begun notes whether anything was written, even nothing.
type begun struct {
	w   flushing
	yes bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.w.Write(p)
}
