package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is something QEMU reports unasked, such as SHUTDOWN or STOP.
type Event struct {
	Name string
	Data json.RawMessage // event-specific object; may be nil
	Time time.Time       // the host's clock when it happened
}

// Error is QEMU's refusal of a command.
type Error struct {
	Command string // what was asked
	Class   string // "GenericError", "CommandNotFound", "DeviceNotActive", …
	Desc    string // a sentence for people
}

func (e *Error) Error() string { return fmt.Sprintf("qemu refuses %s: %s", e.Command, e.Desc) }

// message is one line from QEMU: exactly one of greeting, event, and answer (return or error).
type message struct {
	greeting *greeting
	event    *Event
	id       *uint64 // of the answer; nil where QEMU could not read the command's id
	result   json.RawMessage
	refusal  *Error // Command is not filled in
}

// greeting is the first line of a connection.
type greeting struct {
	major, minor, micro int
}

// wire is the union of all lines, as in QEMU's docs/interop/qmp-spec.
type wire struct {
	QMP *struct {
		Version struct {
			QEMU struct{ Major, Minor, Micro int } `json:"qemu"`
		} `json:"version"`
	} `json:"QMP"`
	Event     *string         `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// decode reads one line.
func decode(line []byte) (message, error) {
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		return message{}, fmt.Errorf("read qmp line: %w", err)
	}
	var m message
	kinds := 0
	if w.QMP != nil {
		v := w.QMP.Version.QEMU
		m.greeting = &greeting{v.Major, v.Minor, v.Micro}
		kinds++
	}
	if w.Event != nil {
		m.event = &Event{Name: *w.Event, Data: w.Data, Time: time.Unix(w.Timestamp.Seconds, w.Timestamp.Microseconds*1000)}
		kinds++
	}
	if w.Return != nil {
		m.id, m.result = w.ID, w.Return
		kinds++
	}
	if w.Error != nil {
		m.id, m.refusal = w.ID, &Error{Class: w.Error.Class, Desc: w.Error.Desc}
		kinds++
	}
	if kinds != 1 {
		return message{}, errors.New("read qmp line: it is not one of greeting, event, return and error")
	}
	return m, nil
}
