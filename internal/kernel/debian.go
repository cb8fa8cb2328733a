package kernel

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"banger/internal/compressed"
	"banger/internal/vm"
)

// control is what matters of a Debian package's control file (deb-control(5)).
type control struct {
	Package string
	Version string
	Depends string
}

// parseControl reads one paragraph of "Field: value" lines; lines that begin with a blank continue a field.
func parseControl(r io.Reader) (control, error) {
	var c control
	var field *string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		if line == "" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if field != nil {
				*field += line
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return control{}, fmt.Errorf("control file: no field in %q", line)
		}
		field = nil
		switch strings.ToLower(name) {
		case "package":
			field = &c.Package
		case "version":
			field = &c.Version
		case "depends":
			field = &c.Depends
		}
		if field != nil {
			*field = strings.TrimSpace(value)
		}
	}
	if err := s.Err(); err != nil {
		return control{}, fmt.Errorf("control file: %w", err)
	}
	if c.Package == "" || c.Version == "" {
		return control{}, errors.New("control file names no package and version")
	}
	return c, nil
}

// packagePattern is Debian's rule for the names of packages; dependPattern finds those a kernel is made of. What they
// match ends up in apt-get's arguments.
var (
	packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	dependPattern  = regexp.MustCompile(`^(linux-(?:image|modules|binary)-[a-z0-9+.-]+)(?:\s*\(=\s*([A-Za-z0-9.+~:-]+)\s*\))?$`)
)

// kernelDependencies returns the packages that hold the kernel a package stands for (a metapackage), or parts of it
// (some distributions package modules apart), as apt-get takes them: NAME or NAME=VERSION. Of alternatives the first.
func kernelDependencies(depends string) []string {
	var names []string
	for clause := range strings.SplitSeq(depends, ",") {
		first, _, _ := strings.Cut(clause, "|")
		if m := dependPattern.FindStringSubmatch(strings.TrimSpace(first)); m != nil {
			if m[2] != "" {
				m[1] += "=" + m[2]
			}
			names = append(names, m[1])
		}
	}
	return names
}

// openMember returns a reader of the tar in the current ar member, compressed as its name tells or not at all.
func openMember(ar *arReader, name string) (io.ReadCloser, error) {
	if strings.HasSuffix(name, ".tar") {
		return io.NopCloser(ar), nil
	}
	return compressed.NewReader(ar)
}

// unpackDeb reads a Debian package: its kernel image into the file image, its modules into t. found is false for a
// package that holds no kernel (a metapackage).
func unpackDeb(ctx context.Context, file, image string, t *tree) (c control, found bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return control{}, false, err
	}
	defer func() { _ = f.Close() }()
	ar, err := newArReader(bufio.NewReaderSize(ctxReader{ctx, f}, 1<<20))
	if err != nil {
		return control{}, false, invalid(file, err)
	}
	for {
		name, err := ar.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return control{}, false, invalid(file, err)
		}
		switch {
		case strings.HasPrefix(name, "control.tar"):
			c, err = memberControl(ar, name)
		case strings.HasPrefix(name, "data.tar"):
			found, err = memberData(ar, name, image, t)
		}
		if err != nil {
			return control{}, false, invalid(path.Base(file)+": "+name, err)
		}
	}
	if c.Package == "" {
		return control{}, false, vm.Errorf(vm.CodeInvalid, "%s is not a Debian package: it has no control file", file)
	}
	return c, found, nil
}

func memberControl(ar *arReader, name string) (control, error) {
	r, err := openMember(ar, name)
	if err != nil {
		return control{}, err
	}
	defer func() { _ = r.Close() }()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err != nil {
			return control{}, noEOF(err)
		}
		if path.Clean("/"+h.Name) == "/control" {
			return parseControl(io.LimitReader(tr, 1<<20))
		}
	}
}

func memberData(ar *arReader, name, image string, t *tree) (found bool, err error) {
	r, err := openMember(ar, name)
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close() }()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return false, err
		}
		if h.Typeflag != tar.TypeReg {
			continue // directories follow from the files; links (build, source) lead nowhere in a guest
		}
		kind, release, rest := classify(h.Name)
		if kind == notOurs {
			continue
		}
		if err := t.setRelease(release); err != nil {
			return false, err
		}
		switch kind {
		case kernelImage:
			found = true
			err = writeNew(image, io.LimitReader(tr, maxVmlinux))
		case moduleFile:
			err = t.add(rest, tr)
		}
		if err != nil {
			return false, err
		}
	}
}

type fileKind int

const (
	notOurs fileKind = iota
	kernelImage
	moduleFile
)

// classify says what a path of a kernel package is: /boot/vmlinuz-RELEASE or [/usr]/lib/modules/RELEASE/REST, where
// some distributions keep vmlinuz too.
func classify(name string) (kind fileKind, release, rest string) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/usr")
	if release, ok := strings.CutPrefix(name, "/boot/vmlinuz-"); ok && !strings.Contains(release, "/") {
		return kernelImage, release, ""
	}
	below, ok := strings.CutPrefix(name, "/lib/modules/")
	if !ok {
		return notOurs, "", ""
	}
	release, rest, ok = strings.Cut(below, "/")
	switch {
	case !ok:
		return notOurs, "", ""
	case rest == "vmlinuz":
		return kernelImage, release, ""
	}
	return moduleFile, release, rest
}

// ctxReader ends a long read when nobody waits for it any more.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
