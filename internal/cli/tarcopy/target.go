// Package tarcopy is the user's end of `vm cp`: it decides where a copy lands by Docker's rules, packs files of this
// machine into a tar stream, and unpacks one that came from a guest.
//
// A guest is not trusted: nothing it sends may be written outside the directory that the user named.
package tarcopy

import (
	"fmt"
	"path"
	"strings"

	"banger/internal/vm"
)

// Kind is what lies at the end of a path, links followed.
type Kind int

// The kinds.
const (
	Missing Kind = iota
	File         // anything that is no directory
	Dir
)

// Contents as the name of a Target: what is in the source directory goes into Target.Dir, the directory itself not.
const Contents = "."

// Target is where a copy lands: in Dir, under Name.
type Target struct{ Dir, Name string }

// Resolve applies the rules of `docker cp` and of cp -r. src is the path as the user wrote it: a trailing "/." means the
// contents of a directory, and a trailing "/" or "/." on dst demands one.
func Resolve(src string, srcDir bool, dst string, dstKind Kind) (Target, error) {
	if !srcDir && demandsDir(src) {
		return Target{}, fmt.Errorf("%s is not a directory", strings.TrimRight(src, "/."))
	}
	switch dstKind {
	case Dir:
		if name := path.Base(src); !isContents(src) {
			return Target{path.Clean(dst), name}, nil
		}
		return Target{path.Clean(dst), Contents}, nil
	case File:
		if srcDir {
			return Target{}, fmt.Errorf("%s is not a directory, but the source is one", dst)
		}
		if demandsDir(dst) {
			return Target{}, fmt.Errorf("%s is not a directory", path.Clean(dst))
		}
	case Missing:
		if !srcDir && demandsDir(dst) {
			return Target{}, vm.Errorf(vm.CodeNotFound, "directory %s does not exist", dst)
		}
	}
	dst = path.Clean(dst)
	return Target{path.Dir(dst), path.Base(dst)}, nil
}

// demandsDir says whether only a directory can be meant.
func demandsDir(p string) bool { return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") }

// isContents says whether a directory's contents are meant: "dir/.", ".", and "/", which has no name.
func isContents(src string) bool {
	return src == "." || strings.HasSuffix(src, "/.") || path.Clean(src) == "/"
}
