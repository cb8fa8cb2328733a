package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banger/internal/host/logfile"
	"banger/internal/vm"
)

// logs answers with a guest's console, or with what the daemon noted about its VM. Following it, it waits for a VM's first
// start, and ends when the VM is deleted.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	rec, err := s.Engine.Store.VMByRef(r.Context(), r.PathValue("ref"))
	if err != nil {
		writeError(w, err)
		return
	}
	o, about, err := logQuery(r.URL.Query(), rec.ID)
	if err != nil {
		writeError(w, err)
		return
	}
	path, what := rec.Runtime.LogPath, "console of VM "+rec.Name
	if about != nil {
		path, what = s.Engine.Paths.DaemonLog(), "daemon's log"
	}
	if path == "" {
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
	to := io.Writer(out)
	if about != nil {
		about.w, to = out, about
	}
	err = logfile.Read(ctx, path, o, to)
	switch {
	case err == nil || ctx.Err() != nil:
	case !out.yes:
		writeError(w, fmt.Errorf("read the %s: %w", what, err))
	default:
		s.Log.Warn("read a log", "path", path, "error", err)
	}
}

// logQuery reads what is asked for. about is nil where it is the console.
func logQuery(q url.Values, id vm.ID) (o logfile.ReadOptions, about *noted, err error) {
	o = logfile.ReadOptions{Tail: -1, Follow: q.Get("follow") == "1"}
	if t := q.Get("tail"); t != "" {
		if o.Tail, err = strconv.Atoi(t); err != nil || o.Tail < 0 {
			return o, nil, vm.Errorf(vm.CodeInvalid, "tail %q is not a number of lines", t)
		}
	}
	switch of := q.Get("of"); of {
	case "", "console":
	case "daemon":
		about = &noted{id: id, tail: o.Tail}
		o.Tail = -1 // of all lines; about counts its own
	default:
		return o, nil, vm.Errorf(vm.CodeInvalid, "there is no log %q: want console or daemon", of)
	}
	since := q.Get("since")
	if since == "" {
		return o, about, nil
	}
	if about == nil {
		return o, nil, vm.Errorf(vm.CodeInvalid, "a console has no times: since is for the daemon's log")
	}
	if about.since, err = time.Parse(time.RFC3339, since); err != nil {
		return o, nil, vm.Errorf(vm.CodeInvalid, "since %q is not a time of RFC 3339", since)
	}
	return o, about, nil
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
