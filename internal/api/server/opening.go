package server

import (
	"context"
	"io"
	"net/http"
	"time"

	"banger/internal/guest"
)

// openings opens execs. A client that goes while its command is being started can tell nobody that it leaves; nor does it know
// of a job to come back to. So the opening is seen to its end without it, and the command hung up there and then, unless it is
// one that its clients leave.
type openings struct {
	http.RoundTripper
	wait time.Duration // bounds an opening that nobody waits for
}

const (
	openingWait  = 5 * time.Minute // as long as a command would linger whose client was cut off
	openingLeave = 5 * time.Second // for the agent's end of a stream that was told of the leaving
)

// RoundTrip returns when its request's context ends, whatever becomes of the opening.
func (o openings) RoundTrip(r *http.Request) (*http.Response, error) {
	type opened struct {
		answer *http.Response
		err    error
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	done := make(chan opened, 1)
	go func() {
		answer, err := o.RoundTripper.RoundTrip(r.WithContext(ctx)) //nolint:bodyclose // who gets it closes it, as leave does
		done <- opened{answer, err}
	}()
	select {
	case d := <-done:
		context.AfterFunc(r.Context(), cancel)
		return d.answer, d.err
	case <-r.Context().Done():
	}
	go func() {
		defer cancel()
		defer time.AfterFunc(o.wait, cancel).Stop()
		if d := <-done; d.err == nil {
			leave(d.answer)
		}
	}()
	return nil, context.Cause(r.Context())
}

// leave tells an agent that the client of a stream leaves, and ends the stream.
func leave(answer *http.Response) {
	defer func() { _ = answer.Body.Close() }()
	stream, ok := answer.Body.(io.ReadWriter)
	if !ok || answer.StatusCode != http.StatusSwitchingProtocols {
		return
	}
	defer time.AfterFunc(openingLeave, func() { _ = answer.Body.Close() }).Stop()
	if guest.NewFrameWriter(stream).Write(guest.FrameBye, nil) == nil {
		_, _ = io.Copy(io.Discard, stream)
	}
}
