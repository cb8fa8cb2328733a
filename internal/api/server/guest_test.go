package server

import (
	"io"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/engine"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// A copy into a guest whose client sends nothing holds neither the client nor the daemon when there is nobody to copy to.
func TestAnIdleCopyEndsWithItsGuest(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*engine.Engine, *fake.Host) error
		want vm.Code
	}{
		{"its machine ends", func(_ *engine.Engine, host *fake.Host) error {
			return host.Exit(host.Running()[0], "exit status 1")
		}, vm.CodeNotRunning},
		{"nobody watches it any more", func(e *engine.Engine, _ *fake.Host) error {
			e.Close()
			return nil
		}, vm.CodeUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, host, _, _, e := serveHandler(t)
			begun := make(chan struct{})
			host.Rule(fake.Rules{Put: func(vmm.Config) { close(begun) }})
			if _, err := c.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil); err != nil {
				t.Fatal(err)
			}
			input, typing := io.Pipe()
			defer typing.Close()
			ended := make(chan error, 1)
			go func() { ended <- c.PutFiles(t.Context(), "web", "/srv", input) }()
			<-begun
			if err := tt.end(e, host); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if vm.CodeOf(err) != tt.want {
					t.Errorf("%v (code %s), want code %s", err, vm.CodeOf(err), tt.want)
				}
			case <-time.After(time.Minute):
				t.Fatal("it does not end")
			}
		})
	}
}
