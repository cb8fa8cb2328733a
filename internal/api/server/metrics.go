package server

import (
	"bufio"
	"net"
	"net/http"
	"strconv"

	"banger/internal/metrics"
)

// newRequests counts the answers that are over.
func newRequests() *metrics.Counter {
	return metrics.NewCounter("banger_requests_total",
		"Requests to the API that are over, by operation and status; of a stream that ended with an error, the status of that.", "operation", "status")
}

// metrics answers in Prometheus' text format.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	var t metrics.Text
	t.Family("gauge", "banger_build_info", "The banger that this daemon is.")
	t.Sample("banger_build_info", 1, metrics.Label{Name: "version", Value: s.Version})
	if err := s.Engine.Metrics(r.Context(), &t); err != nil {
		writeError(w, err)
		return
	}
	s.requests.Write(&t)
	metrics.Process(&t, s.began)
	w.Header().Set("Content-Type", metrics.ContentType)
	_, _ = t.WriteTo(w)
}

// outcome is a ResponseWriter that remembers how a request ends.
type outcome struct {
	http.ResponseWriter
	status int // 0: nothing was said, which is 200
}

// Unwrap lets http.NewResponseController find what the connection can.
func (o *outcome) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// Hijack implements http.Hijacker: the request becomes a stream.
func (o *outcome) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(o.ResponseWriter).Hijack()
	if err == nil {
		o.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// WriteHeader implements http.ResponseWriter.
func (o *outcome) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

// failed says that a stream, whose status is sent, ends with an error.
func failed(w http.ResponseWriter, status int) {
	if o, ok := w.(*outcome); ok {
		o.status = status
	}
}

// count runs a request and counts it when it is over.
func (s *server) count(operation string, w http.ResponseWriter, r *http.Request, next http.Handler) {
	o := &outcome{ResponseWriter: w}
	next.ServeHTTP(o, r)
	if o.status == 0 {
		o.status = http.StatusOK
	}
	if operation == "" {
		operation = "openapi" // what describes itself is not described
	}
	s.requests.Add(operation, strconv.Itoa(o.status))
}
