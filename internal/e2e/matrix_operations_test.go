package e2e

import "testing"

// operation is a command whose daemon is killed at each point that it passes.
type operation struct {
	name   string
	before string // what the VM is at the beginning: absent, stopped, running, paused
	args   []string
	rm     bool // the VM goes with its session

	policy  string                        // the VM's restart policy; empty: none
	prepare func(m *matrix, t *testing.T) // the rest of the beginning
	first   []string                      // a command before it, by which the daemon comes to know its VM
	code    int                           // the command's exit code when nobody dies
	goes    func(m *matrix)               // waits for what goes on after the command, or for the daemon's end
	then    func(m *matrix, c outcome)    // what more must hold afterwards, before anything else is looked at
	slow    bool                          // it takes a boot of its own: fewer points
	library bool                          // it is about images or kernels, and needs no VM
}

// outcome is what came of an operation whose daemon died.
type outcome struct {
	*testing.T
	operation
	code int // the command's
}

const (
	absent  = "absent"
	stopped = "stopped"
	running = "running"
	paused  = "paused"

	subject = "crash" // the VM's name
)

var operations = []operation{
	{name: "run", before: absent, args: []string{"vm", "run", "-d", "-q", "--name", subject}},
	{name: "run --rm", before: absent, args: []string{"vm", "run", "--rm", "-q", "--name", subject, "--", "true"}, rm: true},
	{name: "delete, stopped", before: stopped, args: []string{"vm", "delete", "-q", subject}},
	{name: "start", before: stopped, args: []string{"vm", "start", "-q", subject}},
	{name: "stop", before: running, args: []string{"vm", "stop", "-q", subject}},
	{name: "kill", before: running, args: []string{"vm", "kill", "-q", subject}},
	{name: "pause", before: running, args: []string{"vm", "pause", "-q", subject}},
	{name: "resume", before: paused, args: []string{"vm", "resume", "-q", subject}},
	{name: "set", before: running, args: setArgs, then: (*matrix).wasSet},
	{name: "rename", before: running, args: []string{"vm", "rename", "-q", subject, renamed}, then: (*matrix).wasRenamed},
	restartedByPolicy,
	{name: "reset", before: stopped, args: []string{"vm", "reset", "-q", subject}},
	{name: "delete", before: running, args: []string{"vm", "delete", "-q", subject}},
}
