package cli

import (
	"bytes"
	"io"
	"time"
)

// stampFormat is as exact as the guest's agent is.
const stampFormat = "2006-01-02T15:04:05.000Z07:00 "

// stamped writes the time before each line, that of its first byte.
type stamped struct {
	w      io.Writer
	when   *time.Time
	inLine bool
}

func (s *stamped) Write(p []byte) (int, error) {
	var b bytes.Buffer
	for line := range bytes.Lines(p) {
		if !s.inLine {
			b.WriteString(s.when.UTC().Format(stampFormat))
		}
		b.Write(line)
		s.inLine = line[len(line)-1] != '\n'
	}
	if _, err := s.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}
