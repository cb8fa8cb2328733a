package server

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/engine"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// A copy into a guest whose client sends nothing holds neither the client nor the daemon when there is nobody to copy to. One
// that sends as fast as it can is told why it is over, too, and not only that nobody reads.
func TestACopyEndsWithItsGuest(t *testing.T) {
	machineEnds := func(_ *engine.Engine, host *fake.Host) error { return host.Exit(host.Running()[0], "exit status 1") }
	engineEnds := func(e *engine.Engine, _ *fake.Host) error {
		e.Close()
		return nil
	}
	for _, tt := range []struct {
		name string
		busy bool
		end  func(*engine.Engine, *fake.Host) error
		want vm.Code
	}{
		{"its machine ends", false, machineEnds, vm.CodeNotRunning},
		{"nobody watches it any more", false, engineEnds, vm.CodeUnavailable},
		{"its machine ends while it sends", true, machineEnds, vm.CodeNotRunning},
		{"nobody watches it any more while it sends", true, engineEnds, vm.CodeUnavailable},
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
			if tt.busy {
				go func() {
					for chunk := make([]byte, 64<<10); ; {
						if _, err := typing.Write(chunk); err != nil {
							return
						}
					}
				}()
			}
			if err := tt.end(e, host); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if vm.CodeOf(err) != tt.want || errors.Is(err, syscall.EPIPE) {
					t.Errorf("%v (code %s), want code %s", err, vm.CodeOf(err), tt.want)
				}
			case <-time.After(time.Minute):
				t.Fatal("it does not end")
			}
		})
	}
}

// The connection to the guest that a copy went over is kept for the next request, and ends some day: that is nothing to who
// uses the client's connection by then.
func TestACopyThatIsOverCutsNobodyOff(t *testing.T) {
	c, host, _, _, _ := serveHandler(t)
	if _, err := c.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil); err != nil {
		t.Fatal(err)
	}
	input, typing := io.Pipe()
	go func() {
		_, _ = typing.Write([]byte("all of it"))
		_ = typing.Close()
	}()
	if err := c.PutFiles(t.Context(), "web", "/srv", input); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen, ended := make(chan vm.Event, 1000), make(chan error, 1)
	go func() { ended <- c.Events(ctx, "", func(e vm.Event) { seen <- e }) }()
	until := func(name string, create func()) {
		t.Helper()
		for tick := time.NewTicker(10 * time.Millisecond); ; { // what came before they were asked for is not among them
			select {
			case e := <-seen:
				if e.Name == name {
					tick.Stop()
					return
				}
			case err := <-ended:
				t.Fatalf("the events end: %v", err)
			case <-time.After(time.Minute):
				t.Fatalf("no event of %s", name)
			case <-tick.C:
				create()
			}
		}
	}
	restart := func(name string) func() {
		return func() {
			if _, err := c.Create(t.Context(), api.CreateRequest{Name: name, NoWait: true}, nil); err != nil && vm.CodeOf(err) != vm.CodeExists {
				t.Fatal(err)
			}
			if err := c.Delete(t.Context(), name, nil); err != nil && vm.CodeOf(err) != vm.CodeNotFound {
				t.Fatal(err)
			}
		}
	}
	until("before", restart("before"))
	if err := host.Exit(host.Running()[0], "exit status 1"); err != nil {
		t.Fatal(err)
	}
	until("web", func() {})
	until("after", restart("after"))
}
