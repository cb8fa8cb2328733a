package agent

import (
	"net/http"

	"banger/internal/guest"
	"banger/internal/vm"
)

func (s *Server) handleJobs(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.jobs.describe()) }

func (s *Server) handleSignal(w http.ResponseWriter, r *http.Request) {
	var req guest.SignalRequest
	if !readJSON(w, r, &req) {
		return
	}
	j, err := s.jobs.find(req.Job)
	if err == nil {
		err = j.signal(req.Signal)
	}
	if err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// statusOf is the status that an error about a job travels under.
func statusOf(err error) int {
	switch vm.CodeOf(err) {
	case vm.CodeNotFound:
		return http.StatusNotFound
	case vm.CodeConflict:
		return http.StatusConflict
	case vm.CodeInvalid:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}
