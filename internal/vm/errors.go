package vm

import (
	"errors"
	"fmt"
)

// Code classes an error for a caller that branches (HTTP status, exit code). People read Message and Hint.
type Code string

// The codes. Each maps to one HTTP status (internal/api).
const (
	CodeInvalid     Code = "invalid"     // the request itself is wrong; nothing was made
	CodeNotFound    Code = "not_found"   // no such VM, image, kernel, path
	CodeExists      Code = "exists"      // the name is taken
	CodeNotRunning  Code = "not_running" // needs a running VM
	CodeConflict    Code = "conflict"    // not in this state, or in use
	CodeNoSpace     Code = "no_space"    // the host's disk is full
	CodeMissing     Code = "missing"     // a program or facility of the host is missing
	CodeUnavailable Code = "unavailable" // guest agent or daemon did not answer
	CodeCorrupt     Code = "corrupt"     // a file of ours cannot be read as what it should be
	CodeCanceled    Code = "canceled"    // the caller went away
	CodeInternal    Code = "internal"    // everything else
)

// Error is an error with a code, and a hint where a person can act on it.
type Error struct {
	Code    Code
	Message string // what was being done to what, lower case
	Hint    string // what to do next; may be empty
	Err     error  // cause; may be nil
}

// Errorf makes an Error; %w keeps the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy of e that tells what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// CodeOf finds the outermost code in err's chain; CodeInternal when there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// HintOf finds the first hint in err's chain.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
