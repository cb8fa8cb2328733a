package proc

import (
	"os/exec"
	"testing"
	"time"
)

func TestStarted(t *testing.T) {
	before := time.Now()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	const slack = 2 * time.Second // btime has whole seconds
	if at := Started(id); at.Before(before.Add(-slack)) || at.After(time.Now().Add(slack)) {
		t.Errorf("started at %v, it was begun at %v", at, before)
	}
	id.BootID = "another"
	if at := Started(id); !at.IsZero() {
		t.Errorf("a process of another boot started at %v", at)
	}
}
