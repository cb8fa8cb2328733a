package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

// library is what images and kernels have in common.
type library struct {
	noun   string // "image"
	list   func(context.Context, *client.Client) (names []string, err error)
	unused func(context.Context, *client.Client) ([]entry, error)
	show   func(ctx context.Context, c *client.Client, name string) (view, error)
	tag    func(ctx context.Context, c *client.Client, name string, r api.TagRequest) error
	remove func(ctx context.Context, c *client.Client, name, digest string) error
}

// entry is a name in a library.
type entry struct {
	name, digest string
	size         int64
	created      time.Time
}

// view is what show prints: JSON's object, and for people its lines.
type view struct {
	object any
	lines  *table
}

var (
	imageLibrary = library{
		noun: "image",
		list: func(ctx context.Context, c *client.Client) (names []string, err error) {
			images, err := c.Images(ctx)
			for _, i := range images {
				names = append(names, i.Name)
			}
			return names, err
		},
		unused: func(ctx context.Context, c *client.Client) (all []entry, err error) {
			images, err := c.UnusedImages(ctx)
			for _, i := range images {
				all = append(all, entry{i.Name, i.Digest, i.Size, i.CreatedAt})
			}
			return all, err
		},
		show: func(ctx context.Context, c *client.Client, name string) (view, error) {
			v, err := c.Image(ctx, name)
			return view{v, imageLines(time.Now(), v)}, err
		},
		tag: func(ctx context.Context, c *client.Client, name string, r api.TagRequest) error {
			return c.TagImage(ctx, name, r)
		},
		remove: func(ctx context.Context, c *client.Client, name, digest string) error {
			return c.DeleteImage(ctx, name, digest)
		},
	}

	kernelLibrary = library{
		noun: "kernel",
		list: func(ctx context.Context, c *client.Client) (names []string, err error) {
			kernels, err := c.Kernels(ctx)
			for _, k := range kernels {
				names = append(names, k.Name)
			}
			return names, err
		},
		unused: func(ctx context.Context, c *client.Client) (all []entry, err error) {
			kernels, err := c.UnusedKernels(ctx)
			for _, k := range kernels {
				all = append(all, entry{k.Name, k.Digest, k.Size, k.CreatedAt})
			}
			return all, err
		},
		show: func(ctx context.Context, c *client.Client, name string) (view, error) {
			v, err := c.Kernel(ctx, name)
			return view{v, kernelLines(time.Now(), v)}, err
		},
		tag: func(ctx context.Context, c *client.Client, name string, r api.TagRequest) error {
			return c.TagKernel(ctx, name, r)
		},
		remove: func(ctx context.Context, c *client.Client, name, digest string) error {
			return c.DeleteKernel(ctx, name, digest)
		},
	}
)

// completeLibrary completes names. It starts no daemon.
func (a *app) completeLibrary(l library) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, _, err := a.connectRunning()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		names, _ := l.list(cmd.Context(), c)
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// printMade shows the progress of what makes an image or a kernel, and prints its name.
func (a *app) printMade(ctx context.Context, quiet bool, do func(context.Context, *client.Client, *progress) (name string, err error)) error {
	return a.with(ctx, quiet, func(ctx context.Context, c *client.Client, p *progress) error {
		name, err := do(ctx, c, p)
		if err != nil {
			return err
		}
		p.finish(true)
		_, err = fmt.Fprintln(a.out, name)
		return err
	})
}
