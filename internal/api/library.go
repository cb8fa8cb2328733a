package api

import "banger/internal/vm"

// Paths of second names. {ref} is the first one.
const (
	PathImageTag  = "/v1/images/{ref}/tag"  // POST TagRequest
	PathKernelTag = "/v1/kernels/{ref}/tag" // POST TagRequest
)

// PathImageImport makes an image of a file.
const PathImageImport = "/v1/images/import" // POST ImageImportRequest → stream

// PathCommit makes an image of a VM.
const PathCommit = "/v1/vms/{ref}/commit" // POST CommitRequest → stream

// CommitRequest makes an image of a stopped VM's system disk.
type CommitRequest struct {
	Image string `json:"image"`           // its name
	Force bool   `json:"force,omitempty"` // take the name from another image
}

// ImageImportRequest imports an image.
type ImageImportRequest struct {
	Source string `json:"source"`          // absolute path of a tar, an ext4 file system or a qcow2 disk: its content says which
	Title  string `json:"title,omitempty"` // what people are told the source is; empty = its path
	Name   string `json:"name,omitempty"`  // empty = after the file
	Force  bool   `json:"force,omitempty"` // take the name from another image
}

// ImageView answers PathImage: an image, and what it is to others.
type ImageView struct {
	vm.Image
	Names []string `json:"names"` // all that its digest has, its own among them
	VMs   []string `json:"vms"`   // that stand on it, whatever they know it by
	Path  string   `json:"path"`  // its ext4 file, which nothing ever writes
}

// KernelView answers PathKernel: a kernel, and what it is to others.
type KernelView struct {
	vm.Kernel
	Names []string `json:"names"` // all that its digest has, its own among them
	VMs   []string `json:"vms"`   // that boot from it, whatever they know it by
	Path  string   `json:"path"`  // the directory of its files
}

// TagRequest gives an image or a kernel a second name.
type TagRequest struct {
	Name  string `json:"name"`
	Force bool   `json:"force,omitempty"` // take the name from another that has it
}
