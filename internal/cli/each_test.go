package cli

import (
	"context"
	"slices"
	"testing"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// What was asked about is what it is done to, though another VM may have the name by now.
func TestByID(t *testing.T) {
	var done []string
	e := each{do: func(_ context.Context, _ *client.Client, ref string, _ func(vm.Event)) error {
		done = append(done, ref)
		return nil
	}}.by(map[string]vm.ID{"web": "0123456789ab"})
	for _, name := range []string{"web", "db"} {
		if err := e.do(t.Context(), nil, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(done, []string{"0123456789ab", "db"}) {
		t.Errorf("%q", done)
	}
}
