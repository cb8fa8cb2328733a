package fds

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCloseOnExec(t *testing.T) {
	for name, mark := range map[string]func() error{"close_range": CloseOnExec, "without it": each} {
		t.Run(name, func(t *testing.T) {
			const theirs = 200 // as a shell opens it: inherited by every child
			extra, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = extra.Close() }()
			if err := unix.Dup3(int(extra.Fd()), theirs, 0); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(theirs) }()
			has := func(fd int) bool {
				cmd := exec.Command("test", "-e", fmt.Sprintf("/proc/self/fd/%d", fd))
				cmd.ExtraFiles = []*os.File{extra}
				return cmd.Run() == nil
			}
			if !has(theirs) {
				t.Fatal("the test opened nothing that is inherited")
			}
			if err := mark(); err != nil {
				t.Fatal(err)
			}
			if has(theirs) {
				t.Error("a child inherits it")
			}
			if !has(3) {
				t.Error("a child does not get what it is given")
			}
		})
	}
}
