package server

import (
	"encoding/json"
	"net/http"

	"banger/internal/vm"
)

// eventLines writes events as NDJSON, each flushed.
type eventLines struct {
	enc   *json.Encoder
	flush *http.ResponseController
}

func newEventLines(w http.ResponseWriter) eventLines {
	return eventLines{json.NewEncoder(w), http.NewResponseController(w)}
}

func (l eventLines) write(e vm.Event) error {
	if err := l.enc.Encode(e); err != nil {
		return err
	}
	return l.flush.Flush()
}

// flushing is a writer whose every write reaches the client at once.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}
