package crashtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"banger/internal/api"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// tally counts how requests have ended, by what they were.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *tally) tell(t *testing.T, what string, a answer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	code := vm.CodeOf(a.err)
	if a.acked {
		code = "done"
	} else if code != vm.CodeNotFound && code != vm.CodeConflict {
		t.Errorf("%s: %v", what, a.err)
	}
	c.n[what+" "+string(code)]++
	return a.acked
}

// TestDeleteBesideCreate has VMs created at the moment at which what they are made from is deleted, and made anew. Each VM
// that is there has its image and its kernel, whoever was first.
func TestDeleteBesideCreate(t *testing.T) {
	testhost.Need(t, testhost.Depmod)
	w := newWorld(t)
	defer w.k.end()
	r := w.boot("")
	defer r.close()
	r.serve() // before there are several who ask for it
	c := &tally{n: map[string]int{}}
	drop := func(what, path string) bool { return c.tell(t, what, r.call(http.MethodDelete, path, struct{}{})) }
	image, kernel := "/v1/images/second", "/v1/kernels/mine"
	for round := range 60 {
		must(r, build("second", false)(r))
		must(r, importKernel(r))
		var all sync.WaitGroup
		for n := range 3 {
			all.Go(func() {
				name := fmt.Sprintf("vm-%d-%d", round, n)
				if !c.tell(t, "create", create(r, api.CreateRequest{Name: name, Image: "second", Kernel: "mine"})) {
					return
				}
				v, _ := r.record(name)
				if _, err := os.Stat(r.daemon.Images.RootPath(v.ImageDigest)); err != nil {
					t.Errorf("%s is there, its image is not: %v", name, err)
				}
				if _, err := r.daemon.Kernels.Boot(r.ctx, v.KernelDigest); err != nil {
					t.Errorf("%s is there, its kernel is not: %v", name, err)
				}
			})
		}
		for range 2 {
			all.Go(func() { drop("delete image", image) })
			all.Go(func() { drop("delete kernel", kernel) })
		}
		if round%2 == 0 {
			all.Go(func() { c.tell(t, "build", build("second", false)(r)) })
			all.Go(func() { c.tell(t, "import", importKernel(r)) })
		}
		all.Wait()
		if err := r.rest(); err != nil { // every file has its row, and every row its files
			t.Fatalf("round %d: %v", round, err)
		}
		records, err := r.records()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range records {
			must(r, r.call(http.MethodDelete, "/v1/vms/"+v.Name, struct{}{}))
		}
	}
	t.Log(c.n)
	must(r, build("second", false)(r))
	must(r, importKernel(r))
	if !drop("the last", image) || !drop("the last", kernel) {
		t.Error("what nobody uses cannot be deleted")
	}
	if _, err := r.daemon.Images.Get(context.Background(), "second"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("the image is there after all: %v", err)
	}
	if err := r.rest(); err != nil {
		t.Error(err)
	}
}
