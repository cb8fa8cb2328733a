package inventory

import (
	"errors"
	"io/fs"
	"testing"
)

func TestWork(t *testing.T) {
	var work Work
	look := func(meanwhile func()) bool {
		t.Helper()
		busy, err := work.Look(func() error { meanwhile(); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return busy
	}
	nothing := func() {}
	if look(nothing) {
		t.Error("busy before any probe")
	}
	end := work.Begin()
	if !look(nothing) {
		t.Error("idle while one probes")
	}
	if !look(end) {
		t.Error("idle, though one probed when the look began")
	}
	if look(nothing) {
		t.Error("busy after the probe")
	}
	if !look(func() { work.Begin()() }) {
		t.Error("idle, though one came and went")
	}
	if !look(func() { end = work.Begin() }) {
		t.Error("idle, though one began")
	}
	end()
	var none *Work
	none.Begin()()
	if busy, err := none.Look(func() error { return fs.ErrInvalid }); busy || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("without work: %v, %v", busy, err)
	}
}
