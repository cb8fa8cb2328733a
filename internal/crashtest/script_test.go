package crashtest

import (
	"context"
	"fmt"

	"banger/internal/api"
	"banger/internal/vm"
)

// buildScripted makes an image in a VM of another one, which is built for it and has no name; its guest takes the script, and
// says that it has run it.
func buildScripted(r *run) answer {
	return r.call("POST", api.PathBuild, api.BuildRequest{Recipe: vm.DefaultImage, Name: "second", Packages: []string{"git"}, Script: "#!/bin/sh\ntrue\n"})
}

// scriptedThere: all or nothing, and no VM but those of before.
func scriptedThere(r *run, a answer) error {
	if _, err := r.daemon.Images.Get(context.Background(), "second"); err != nil && a.acked {
		return fmt.Errorf("the client was told of image second: %w", err)
	}
	all, err := r.records()
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d VMs are there, with that which the script ran in", len(all))
	}
	return err
}
