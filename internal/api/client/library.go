package client

import (
	"context"
	"net/http"
	"net/url"

	"banger/internal/api"
	"banger/internal/vm"
)

// Images lists all images.
func (c *Client) Images(ctx context.Context) (all []vm.Image, err error) {
	err = c.json(ctx, "listing images", http.MethodGet, api.PathImages, nil, &all)
	return all, err
}

// UnusedImages lists those that no VM stands on.
func (c *Client) UnusedImages(ctx context.Context) (all []vm.Image, err error) {
	err = c.json(ctx, "listing images", http.MethodGet, api.PathImages+"?unused=true", nil, &all)
	return all, err
}

// Image returns an image with what it is to others.
func (c *Client) Image(ctx context.Context, name string) (v api.ImageView, err error) {
	err = c.json(ctx, "reading image "+name, http.MethodGet, path(api.PathImage, name), nil, &v)
	return v, err
}

// TagImage gives an image a second name.
func (c *Client) TagImage(ctx context.Context, name string, r api.TagRequest) error {
	return c.json(ctx, "tagging image "+name, http.MethodPost, path(api.PathImageTag, name), r, nil)
}

// DeleteImage deletes an image that no VM stands on; digest, unless empty, is what the name must stand for.
func (c *Client) DeleteImage(ctx context.Context, name, digest string) error {
	return c.json(ctx, "deleting image "+name, http.MethodDelete, path(api.PathImage, name)+ifDigest(digest), nil, nil)
}

// Build builds an image.
func (c *Client) Build(ctx context.Context, r api.BuildRequest, onEvent func(vm.Event)) (*vm.Image, error) {
	return c.image(ctx, "building an image of "+r.Recipe, api.PathBuild, r, onEvent)
}

// ImportImage makes an image of a file.
func (c *Client) ImportImage(ctx context.Context, r api.ImageImportRequest, onEvent func(vm.Event)) (*vm.Image, error) {
	return c.image(ctx, "importing an image from "+r.Source, api.PathImageImport, r, onEvent)
}

// Commit makes an image of a stopped VM's system disk.
func (c *Client) Commit(ctx context.Context, ref string, r api.CommitRequest, onEvent func(vm.Event)) (*vm.Image, error) {
	return c.image(ctx, "committing VM "+ref, path(api.PathCommit, ref), r, onEvent)
}

// image makes a stream request whose outcome is an image.
func (c *Client) image(ctx context.Context, what, path string, body any, onEvent func(vm.Event)) (*vm.Image, error) {
	m, err := c.Stream(ctx, what, http.MethodPost, path, body, onEvent)
	if err != nil {
		return nil, err
	}
	if m.Image == nil {
		return nil, vm.Errorf(vm.CodeInternal, "%s: the daemon's answer names no image", what)
	}
	return m.Image, nil
}

// Kernels lists all kernels.
func (c *Client) Kernels(ctx context.Context) (all []vm.Kernel, err error) {
	err = c.json(ctx, "listing kernels", http.MethodGet, api.PathKernels, nil, &all)
	return all, err
}

// UnusedKernels lists those that no VM boots from.
func (c *Client) UnusedKernels(ctx context.Context) (all []vm.Kernel, err error) {
	err = c.json(ctx, "listing kernels", http.MethodGet, api.PathKernels+"?unused=true", nil, &all)
	return all, err
}

// Kernel returns a kernel with what it is to others.
func (c *Client) Kernel(ctx context.Context, name string) (v api.KernelView, err error) {
	err = c.json(ctx, "reading kernel "+name, http.MethodGet, path(api.PathKernel, name), nil, &v)
	return v, err
}

// TagKernel gives a kernel a second name.
func (c *Client) TagKernel(ctx context.Context, name string, r api.TagRequest) error {
	return c.json(ctx, "tagging kernel "+name, http.MethodPost, path(api.PathKernelTag, name), r, nil)
}

// DeleteKernel deletes a kernel that no VM boots from; digest, unless empty, is what the name must stand for.
func (c *Client) DeleteKernel(ctx context.Context, name, digest string) error {
	return c.json(ctx, "deleting kernel "+name, http.MethodDelete, path(api.PathKernel, name)+ifDigest(digest), nil, nil)
}

// Import imports a kernel.
func (c *Client) Import(ctx context.Context, r api.ImportRequest, onEvent func(vm.Event)) (*vm.Kernel, error) {
	m, err := c.Stream(ctx, "importing a kernel", http.MethodPost, api.PathImport, r, onEvent)
	if err != nil {
		return nil, err
	}
	if m.Kernel == nil {
		return nil, vm.Errorf(vm.CodeInternal, "importing a kernel: the daemon's answer names no kernel")
	}
	return m.Kernel, nil
}

// ifDigest is the query of a request about a name that must stand for a digest.
func ifDigest(digest string) string {
	if digest == "" {
		return ""
	}
	return "?" + url.Values{"digest": {digest}}.Encode()
}
