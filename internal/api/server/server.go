// Package server is the daemon's end of the API: HTTP+JSON on a unix socket, with an OpenAPI document generated from
// the Go types. A handler has no policy: it translates, and asks the engine or a library. No handler touches the host.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/binary"
	"banger/internal/engine"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/metrics"
	"banger/internal/vm"
)

// Config wires a server.
type Config struct {
	Engine    *engine.Engine
	Images    *image.Library
	Kernels   *kernel.Library
	Programs  *binary.Library // of VMMs
	Version   string
	Status    func(context.Context) (api.Status, error)
	Doctor    func(context.Context) []api.Problem
	Inventory Inventory // of what is ours on the host
	Stop      func()    // asks the daemon to end; returns at once
	Log       *slog.Logger
}

type server struct {
	Config
	schemas  huma.Registry
	requests *metrics.Counter
	began    time.Time
}

// ourRefusals gives what the library itself refuses our form. It has one way to do so, which is one for the whole program.
var ourRefusals = sync.OnceFunc(func() { huma.NewError = refused })

// New returns the handler of the whole API.
func New(c Config) http.Handler {
	ourRefusals()
	mux := http.NewServeMux()
	config := huma.DefaultConfig("banger", c.Version)
	config.DocsPath, config.SchemasPath, config.OpenAPIPath = "", "", ""
	config.CreateHooks = nil // no $schema links in bodies
	h := humago.New(mux, config)
	s := &server{Config: c, schemas: h.OpenAPI().Components.Schemas, requests: newRequests(), began: time.Now()}
	s.daemonRoutes(h)
	s.vmRoutes(h)
	s.libraryRoutes(h)
	s.vmmRoutes(h)
	s.objectRoutes(h)
	s.streamRoutes(h, mux)
	mux.HandleFunc("GET "+api.PathOpenAPI, func(w http.ResponseWriter, _ *http.Request) {
		b, err := h.OpenAPI().MarshalJSON()
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b)
	})
	return s.outer(mux, operations(h))
}

// outer is around every request: the version header, and answers in our form for paths that do not exist.
func (s *server) outer(mux *http.ServeMux, operations map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.VersionHeader, s.Version)
		_, pattern := mux.Handler(r)
		if pattern == "" {
			writeError(w, vm.Errorf(vm.CodeNotFound, "the daemon has no %s %s", r.Method, r.URL.Path).
				WithHint("is the daemon older than this banger? banger version tells"))
			return
		}
		s.Log.Debug("request", "method", r.Method, "path", r.URL.Path)
		operation := operations[pattern]
		s.count(operation, w, r.WithContext(act.In(r.Context(), operation)), mux)
	})
}

// operations names what is served under each of the mux's patterns, as the API's document does.
func operations(h huma.API) map[string]string {
	names := map[string]string{}
	for path, item := range h.OpenAPI().Paths {
		for _, o := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete, item.Head} {
			if o != nil {
				names[o.Method+" "+path] = o.OperationID
			}
		}
	}
	return names
}

// body is an answer with a JSON body.
type body[T any] struct{ Body T }

type empty struct{}

// ref is the input of everything about one VM.
type ref struct {
	Ref string `path:"ref" doc:"the VM's name, its id, or a unique prefix of the id"`
}

// statusError carries our error body through huma.
type statusError struct {
	api.ErrorBody
	status int
}

func (e *statusError) GetStatus() int { return e.status }
func (e *statusError) Error() string  { return e.Message }

// refused is what huma itself refuses: a body that does not fit its type, say.
func refused(status int, msg string, errs ...error) huma.StatusError {
	code := vm.CodeInvalid
	if status >= http.StatusInternalServerError {
		code = vm.CodeInternal
	}
	if err := errors.Join(errs...); err != nil {
		msg += ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return &statusError{api.ErrorBody{Code: code, Message: msg}, status}
}

// fail turns an error into an answer.
func fail(err error) error {
	return &statusError{*api.BodyOf(err), api.StatusOf(vm.CodeOf(err))}
}

// answer is a handler's last line: a body, or the error in our form.
func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, fail(err)
	}
	return &body[T]{v}, nil
}

func op(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary}
}

func (s *server) daemonRoutes(h huma.API) {
	huma.Register(h, op("GET", api.PathVersion, "version", "Who answers"), func(context.Context, *empty) (*body[api.Version], error) {
		return answer(api.Version{Version: s.Version, PID: os.Getpid()}, nil)
	})
	huma.Register(h, op("GET", api.PathStatus, "status", "How the daemon is"), func(ctx context.Context, _ *empty) (*body[api.Status], error) {
		return answer(s.Status(ctx))
	})
	huma.Register(h, op("POST", api.PathStop, "stop", "End the daemon; VMs live on"), func(context.Context, *empty) (*empty, error) {
		s.Stop()
		return nil, nil
	})
	huma.Register(h, op("GET", api.PathDoctor, "doctor", "Look for problems of the host"), func(ctx context.Context, _ *empty) (*body[[]api.Problem], error) {
		return answer(s.Doctor(ctx), nil)
	})
}
