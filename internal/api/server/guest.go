package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/metrics"
	"banger/internal/vm"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// streamRoutes are the paths that are not one JSON body: event stream, logs, and what is passed through to the agent.
// huma does not serve them, so they are described to its document by hand.
func (s *server) streamRoutes(h huma.API, mux *http.ServeMux) {
	describe := func(method, path, id, summary, content string, schema *huma.Schema) {
		o := op(method, path, id, summary)
		o.Responses = map[string]*huma.Response{"200": {Description: summary, Content: map[string]*huma.MediaType{content: {Schema: schema}}}}
		h.OpenAPI().AddOperation(&o)
	}
	bytes := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	describe("GET", api.PathEvents, "events", "What happens from now on, a line each", ndjson, huma.SchemaFromType(s.schemas, typeOf[vm.Event]()))
	describe("GET", api.PathMetrics, "metrics", "What the daemon counts, in Prometheus' text format", metrics.ContentType, bytes)
	describe("GET", api.PathVMLogs, "vm-logs", "A guest's console", "text/plain", bytes)
	describe("POST", api.PathVMExec, "vm-exec", "Run a command; upgraded to "+guest.UpgradeExec+" frames", guest.UpgradeExec, bytes)
	describe("POST", api.PathAttach, "vm-attach", "Join a job (body: AttachRequest); upgraded to "+guest.UpgradeExec+" frames", guest.UpgradeExec, bytes)
	describe("POST", api.PathVMSSH, "vm-ssh", "One SSH connection; upgraded to "+guest.UpgradeRaw, guest.UpgradeRaw, bytes)
	describe("GET", api.PathVMFiles, "vm-files-get", "A path of the guest as a tar stream", "application/x-tar", bytes)
	describe("PUT", api.PathVMFiles, "vm-files-put", "Extract a tar stream in a directory of the guest", "application/x-tar", bytes)
	describe("HEAD", api.PathVMFiles, "vm-files-head", "What a path of the guest is, in header "+guest.StatHeader, "application/x-tar", bytes)

	mux.HandleFunc("GET "+api.PathEvents, s.events)
	mux.HandleFunc("GET "+api.PathMetrics, s.metrics)
	mux.HandleFunc("GET "+api.PathVMLogs, s.logs)
	mux.HandleFunc("POST "+api.PathVMExec, s.session(guest.PathExec))
	mux.HandleFunc("POST "+api.PathAttach, s.session(guest.PathAttach))
	mux.HandleFunc("POST "+api.PathVMSSH, s.ssh)
	mux.HandleFunc("GET "+api.PathVMFiles, s.toAgent(guest.PathFiles)) // GET serves HEAD too
	mux.HandleFunc("PUT "+api.PathVMFiles, s.toAgent(guest.PathFiles))
}

func (s *server) events(w http.ResponseWriter, r *http.Request) {
	ref := r.URL.Query().Get("vm")
	events, err := s.Engine.Events(r.Context(), ref)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", ndjson)
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush() //nolint:errcheck // the client notices what it does not get
	for lines := newEventLines(w); err == nil; {
		for e := range events {
			if lines.write(e) != nil {
				return
			}
		}
		// It was cut off since it did not keep up, or there are no more: then nothing can be followed any more.
		if r.Context().Err() != nil {
			return
		}
		if events, err = s.Engine.Events(r.Context(), ref); err == nil {
			err = lines.write(vm.Event{Time: time.Now(), Kind: "note", Text: "events are missing here: this client did not read them in time"})
		}
	}
}

// session joins a client to a command in the guest, a new one or a job. A VM made with --rm goes with its session.
func (s *server) session(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, end, err := s.Engine.Session(r.Context(), r.PathValue("ref"))
		if err != nil {
			writeError(w, err)
			return
		}
		defer end()
		s.follow(c, path, w, r)
	}
}

func (s *server) ssh(w http.ResponseWriter, r *http.Request) {
	c, err := s.Engine.Agent(r.Context(), r.PathValue("ref"))
	if err != nil {
		writeError(w, err)
		return
	}
	s.follow(c, guest.PathSSH, w, r)
}

// follow passes a stream that may be silent for as long as its guest lives.
func (s *server) follow(c *guest.Client, path string, w http.ResponseWriter, r *http.Request) {
	ctx, stop := s.Engine.WhileAnswers(r.Context(), r.PathValue("ref"))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r = r.WithContext(ctx)
	if streams(r) {
		tied, untie := guest.Tie(r, func() {
			cancel(guest.ErrEnded) // before net/http takes the client for gone, of which nothing can be read any more
			stopReading(w)
		})
		defer untie()
		r = tied
	}
	s.proxy(c, r.PathValue("ref"), path).ServeHTTP(w, r)
}

// streams says that a request has a body whose end is not known: its client may have nothing to say for hours.
func streams(r *http.Request) bool { return r.ContentLength < 0 }

// hearOut is how long a client that streams is heard out that is not passed on any more. What it has sent on its way is taken
// meanwhile: net/http hangs up on a client that cannot read the answer before it has sent all, unless it gets through that.
const hearOut = time.Second

// stopReading ends the reading of a request's body soon: an answer would wait for a client that says nothing.
func stopReading(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(hearOut))
}

// toAgent passes a request through to the same-named path of the VM's agent.
func (s *server) toAgent(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := s.Engine.Agent(r.Context(), r.PathValue("ref"))
		if err != nil {
			if streams(r) {
				stopReading(w)
			}
			writeError(w, err)
			return
		}
		s.follow(c, path, w, r)
	}
}

// proxy passes a request and its answer, upgrades included, between client and the agent of a VM.
func (s *server) proxy(c *guest.Client, ref, path string) *httputil.ReverseProxy {
	transport := c.Transport()
	if path == guest.PathExec {
		transport = openings{transport, openingWait}
	}
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = &url.URL{Scheme: "http", Host: "guest", Path: path, RawQuery: p.In.URL.RawQuery}
			p.Out.Host = "guest"
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			ctx := r.Context()
			if streams(r) {
				stopReading(w)
			}
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, guest.ErrEnded) { // the client has gone, or the guest
				writeError(w, vm.Errorf(vm.CodeUnavailable, "reach the guest's agent: %w", cause).WithHint("banger vm logs %s shows the guest's console", ref))
				return
			}
			s.Log.Warn("request to the agent failed", "path", path, "error", err)
			writeError(w, s.Engine.Unreached(context.WithoutCancel(ctx), ref, err))
		},
	}
}
