package image

import (
	"context"
	"sync"

	"banger/internal/vm"
)

// flight is one build that any number of callers wait for.
type flight struct {
	want   string // what is being built, to tell callers who want something else
	cancel context.CancelFunc
	done   chan struct{} // closed when img and err are set

	img vm.Image
	err error

	waiters int // guarded by Library.mu

	mu      sync.Mutex
	reports map[*vm.Report]struct{}
}

// note tells all who wait.
func (f *flight) note(e vm.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.reports {
		r.Send(e)
	}
}

func (f *flight) listen(report *vm.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports[report] = struct{}{}
}

func (f *flight) unlisten(report *vm.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.reports, report)
}

// fly joins the flight of that name or starts one by calling build, and waits for its end or ctx's. Who goes away
// disturbs nobody; when the last one went, the build is cancelled and cleans up behind the callers' backs.
func (l *Library) fly(ctx context.Context, name, want string, report vm.Report, build func(ctx context.Context, note func(vm.Event)) (vm.Image, error)) (vm.Image, error) {
	if err := ctx.Err(); err != nil {
		return vm.Image{}, err
	}
	f, err := l.board(ctx, name, want, &report, build)
	if err != nil {
		return vm.Image{}, err
	}
	defer f.unlisten(&report)
	defer l.leave(name, f)
	select {
	case <-f.done:
		return f.img, f.err
	case <-ctx.Done():
		return vm.Image{}, ctx.Err()
	}
}

func (l *Library) board(ctx context.Context, name, want string, report *vm.Report, build func(context.Context, func(vm.Event)) (vm.Image, error)) (*flight, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, vm.Errorf(vm.CodeCanceled, "build image %s: the daemon is stopping", name)
	}
	if f := l.flights[name]; f != nil {
		if f.want != want {
			return nil, vm.Errorf(vm.CodeConflict, "image %s is being built with other options: %s", name, f.want).
				WithHint("wait for that build to end")
		}
		f.waiters++
		f.listen(report)
		return f, nil
	}
	buildCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{want: want, cancel: cancel, done: make(chan struct{}), waiters: 1, reports: map[*vm.Report]struct{}{report: {}}}
	l.flights[name] = f
	l.running.Add(1)
	go func() {
		defer l.running.Done()
		defer cancel()
		f.img, f.err = build(buildCtx, f.note)
		l.land(name, f)
		close(f.done)
	}()
	return f, nil
}

// leave counts a waiter out. Nobody can join a flight that was given up.
func (l *Library) leave(name string, f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	f.cancel()
	if l.flights[name] == f {
		delete(l.flights, name)
	}
}

func (l *Library) land(name string, f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flights[name] == f {
		delete(l.flights, name)
	}
}
