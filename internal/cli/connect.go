package cli

import (
	"context"
	"fmt"

	"banger/internal/api/client"
	"banger/internal/cli/launch"
	"banger/internal/paths"
	"banger/internal/version"
)

// connect returns a client that starts the daemon where none runs. It makes no connection yet.
func (a *app) connect() (*client.Client, error) {
	p, err := daemonPaths()
	if err != nil {
		return nil, err
	}
	a.note("the daemon's socket is %s", p.Socket())
	start := a.toldStart(launch.Launcher{Paths: p, Spawned: a.tellSpawned})
	return client.New(p.Socket(), client.WithStart(start), client.WithVersion(a.compareVersion), client.WithTrace(a.trace())), nil
}

// connectRunning returns a client of the running daemon; its requests give client.ErrNoDaemon where there is none.
func (a *app) connectRunning() (*client.Client, paths.Paths, error) {
	p, err := daemonPaths()
	if err != nil {
		return nil, p, err
	}
	a.note("the daemon's socket is %s; none is started", p.Socket())
	return client.New(p.Socket(), client.WithTrace(a.trace())), p, nil
}

func daemonPaths() (paths.Paths, error) {
	p, err := paths.Default()
	if err != nil {
		return p, err
	}
	return p, p.CheckSockets()
}

// compareVersion warns of a daemon of another build: the API may have moved.
func (a *app) compareVersion(daemon string) {
	if own := version.String(); daemon != own {
		fmt.Fprintf(a.err, "banger: this is banger %s, the daemon is %s: run 'banger daemon stop' (VMs keep running), the next command starts the new one\n", own, clean(daemon))
	}
}

// with runs f with a client and a progress display that is finished when f returns.
func (a *app) with(ctx context.Context, quiet bool, f func(context.Context, *client.Client, *progress) error) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	p := a.progress(quiet)
	defer p.finish(false)
	return f(ctx, c, p)
}
