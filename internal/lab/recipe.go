package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// packages of the lab's image: an init that brings up all a host has, and what banger and its tests need of a host.
var packages = []string{
	"systemd-sysv", "udev", "dbus", "kmod", "procps", "util-linux", "ca-certificates",
	"dmsetup", "e2fsprogs", "xfsprogs", "iproute2", "nftables", "openssh-client", "qemu-system-x86", "qemu-utils",
	"ansible-core", "curl", "git", "rsync", "sshfs", // what people reach VMs with by ssh
	"zstd", // what is sent in comes compressed: the channel is the slowest part of it
}

// buildTime bounds the build of the image, which takes about a minute.
const buildTime = 10 * time.Minute

// imageName says by its name what an image was built from. One of another recipe has another name, so it is never
// taken for this one's.
func imageName(kernelDigest string, packages []string) string {
	sorted := slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(kernelDigest + "\n" + strings.Join(sorted, "\n") + "\n"))
	return name + "-" + hex.EncodeToString(sum[:])[:12]
}

// image makes the lab's root hold the default kernel, the lab's image and the one with tools, and returns the name of the lab's.
func (l *Lab) image(ctx context.Context) (string, error) {
	have, image, err := l.seed(ctx)
	if err != nil || have {
		return image, err
	}
	for name, packages := range map[string]string{image: strings.Join(packages, ","), testhost.ToolsImage: testhost.ToolsPackages} {
		if err := l.build(ctx, name, packages); err != nil {
			return "", err
		}
	}
	if have, image, err = l.seed(ctx); err == nil && !have {
		err = fmt.Errorf("images %s and %s were built and are not there", image, testhost.ToolsImage)
	}
	return image, err
}

// build makes an image that is not in the cache yet.
func (l *Lab) build(ctx context.Context, name, packages string) error {
	l.Log("lab: building image %s", name)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	if _, err := l.host(ctx, filepath.Join(l.Repo, "scripts", "test-root"), "image", name, packages); err != nil {
		return err
	}
	l.Log("lab: image %s built in %.0f s", name, time.Since(begin).Seconds())
	return nil
}

// seed makes the root anew, and says whether it holds the images that the lab needs, and which its own is.
func (l *Lab) seed(ctx context.Context) (have bool, image string, err error) {
	if err := os.RemoveAll(l.root()); err != nil {
		return false, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, buildTime) // it makes what is not in the cache yet
	defer cancel()
	if _, err := l.host(ctx, filepath.Join(l.Repo, "scripts", "test-root"), "seed", l.root()); err != nil {
		return false, "", err
	}
	var kernels []vm.Kernel
	var images []vm.Image
	for kind, list := range map[string]any{"kernel": &kernels, "image": &images} {
		out, err := l.banger(ctx, kind, "list", "--json")
		if err != nil {
			return false, "", err
		}
		if err := json.Unmarshal([]byte(out), list); err != nil {
			return false, "", fmt.Errorf("read banger %s list: %w", kind, err)
		}
	}
	i := slices.IndexFunc(kernels, func(k vm.Kernel) bool { return k.Name == vm.DefaultKernel })
	if i < 0 {
		return false, "", fmt.Errorf("no kernel %s in a seeded root", vm.DefaultKernel)
	}
	image = imageName(kernels[i].Digest, packages)
	holds := func(name string) bool {
		return slices.ContainsFunc(images, func(i vm.Image) bool { return i.Name == name })
	}
	have = holds(image) && holds(testhost.ToolsImage)
	if !have { // the daemon must not hold a root that is about to be made anew
		_, err = l.banger(ctx, "daemon", "stop")
	}
	return have, image, err
}
