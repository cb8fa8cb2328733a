package server

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"banger/internal/api"
	"banger/internal/vm"
)

const ndjson = "application/x-ndjson"

// streamed describes an operation that answers with api.Message lines.
func (s *server) streamed(method, path, id, summary string) huma.Operation {
	o := op(method, path, id, summary)
	o.Description = "Answers api.Message lines: events, then one with done. What is refused before anything is made answers as an error."
	o.Responses = map[string]*huma.Response{"200": {
		Description: "lines of Message",
		Content:     map[string]*huma.MediaType{ndjson: {Schema: huma.SchemaFromType(s.schemas, typeOf[api.Message]())}},
	}}
	return o
}

// stream answers with what run reports and returns. An error before the first event is an ordinary error answer; after
// it, the last line. A client that goes away ends ctx, which ends waiting, never a VM.
func stream(run func(ctx context.Context, report vm.Report) (api.Message, error)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		lines := &lineWriter{w: w, enc: json.NewEncoder(w)}
		m, err := run(r.Context(), func(e vm.Event) { lines.send(api.Message{Event: &e}) })
		if err != nil && !lines.started() {
			writeError(w, err)
			return
		}
		m.Done = true
		if err != nil {
			m = api.Message{Done: true, Error: api.BodyOf(err)}
			failed(w, api.StatusOf(vm.CodeOf(err)))
		}
		lines.send(m)
	}}
}

// lineWriter writes one JSON value a line and flushes it. Reports come from several goroutines.
type lineWriter struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	enc   *json.Encoder
	begun bool
}

func (l *lineWriter) started() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

func (l *lineWriter) send(v any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", ndjson)
		l.w.WriteHeader(http.StatusOK)
	}
	_ = l.enc.Encode(v) // a client that went away is noticed by its context
	_ = http.NewResponseController(l.w).Flush()
}

func writeError(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(api.StatusOf(vm.CodeOf(err)))
	_ = json.NewEncoder(w).Encode(api.BodyOf(err))
}
