package server

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// ends reads what is left, and fails when there is no end.
func ends(t *testing.T, r io.Reader) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("the log ends with %v", err)
		}
		got <- string(b)
	}()
	select {
	case s := <-got:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("the log does not end")
		return ""
	}
}

func TestFollowedLogEndsWithItsVM(t *testing.T) {
	c, _, _ := serve(t)
	ctx := t.Context()
	if _, err := c.Create(ctx, api.CreateRequest{Name: "web", Start: true}, nil); err != nil {
		t.Fatal(err)
	}
	v, err := c.VM(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Runtime.LogPath, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := c.Logs(ctx, "web", client.LogQuery{Follow: true, Tail: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r := bufio.NewReader(log)
	if line, err := r.ReadString('\n'); err != nil || line != "two\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := c.Delete(ctx, "web", nil); err != nil {
		t.Fatal(err)
	}
	ends(t, r)
}

func TestFollowedLogOfAVMThatNeverRan(t *testing.T) {
	c, _, _ := serve(t)
	ctx := t.Context()
	if _, err := c.Create(ctx, api.CreateRequest{Name: "web"}, nil); err != nil {
		t.Fatal(err)
	}
	v, err := c.VM(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	if log, err := c.Logs(ctx, "web", client.LogQuery{Tail: -1}); err != nil || ends(t, log) != "" {
		t.Errorf("not followed: %v", err)
	}
	log, err := c.Logs(ctx, "web", client.LogQuery{Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	other, err := c.Logs(ctx, "web", client.LogQuery{Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.MkdirAll(filepath.Dir(v.Runtime.LogPath), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Runtime.LogPath, []byte("booting\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	both := []*bufio.Reader{bufio.NewReader(log), bufio.NewReader(other)}
	for _, r := range both {
		if line, err := r.ReadString('\n'); err != nil || line != "booting\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if err := c.Delete(ctx, "web", nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range both {
		ends(t, r)
	}

	t.Run("and never will", func(t *testing.T) {
		if _, err := c.Create(ctx, api.CreateRequest{Name: "web"}, nil); err != nil {
			t.Fatal(err)
		}
		log, err := c.Logs(ctx, "web", client.LogQuery{Follow: true, Tail: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := c.Delete(ctx, "web", nil); err != nil {
			t.Fatal(err)
		}
		if got := ends(t, log); got != "" {
			t.Errorf("%q", got)
		}
	})
}

func TestFollowedLogThatCannotBe(t *testing.T) {
	c, _, _ := serve(t)
	ctx := t.Context()
	if _, err := c.Create(ctx, api.CreateRequest{Name: "web"}, nil); err != nil {
		t.Fatal(err)
	}
	v, err := c.VM(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Dir(v.VMDir)); err != nil { // of all VMs: empty
		t.Fatal(err)
	}
	if _, err := c.Logs(ctx, "web", client.LogQuery{Follow: true, Tail: -1}); vm.CodeOf(err) != vm.CodeInternal {
		t.Errorf("an error from before the first byte came as %v", err)
	}
}
