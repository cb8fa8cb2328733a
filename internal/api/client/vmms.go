package client

import (
	"context"
	"net/http"
	"strings"

	"banger/internal/api"
	"banger/internal/vm"
)

// VMMs lists the VMM programs that are installed, configured or found.
func (c *Client) VMMs(ctx context.Context) (vmms []api.VMM, err error) {
	err = c.json(ctx, "listing VMMs", http.MethodGet, api.PathVMMs, nil, &vmms)
	return vmms, err
}

// VMM returns one VMM: the program in use, and whether VMs can be run with it. The first time after a boot of the host a
// guest is booted to find out.
func (c *Client) VMM(ctx context.Context, name string) (v api.VMMView, err error) {
	err = c.json(ctx, "reading VMM "+name, http.MethodGet, path(api.PathVMM, name), nil, &v)
	return v, err
}

// Install installs a VMM's programs.
func (c *Client) Install(ctx context.Context, name string, r api.InstallRequest, onEvent func(vm.Event)) (*api.VMM, error) {
	m, err := c.Stream(ctx, "installing "+name, http.MethodPost, path(api.PathVMMInstall, name), r, onEvent)
	if err != nil {
		return nil, err
	}
	if m.VMM == nil {
		return nil, vm.Errorf(vm.CodeInternal, "installing %s: the daemon's answer names no VMM", name)
	}
	return m.VMM, nil
}

// DeleteVMM deletes an installed version of a VMM.
func (c *Client) DeleteVMM(ctx context.Context, name, version string) error {
	p := strings.ReplaceAll(path(api.PathVMMVersion, name), "{version}", escape(version))
	return c.json(ctx, "deleting "+name+" "+version, http.MethodDelete, p, nil, nil)
}
