package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger/internal/api/client"
	"banger/internal/cli/sshconfig"
	"banger/internal/cli/tarcopy"
	"banger/internal/vm"
)

// maxLinks is how many symbolic links are followed to find what a path in a guest is.
const maxLinks = 40

// copying is one `vm cp`.
type copying struct {
	*app
	c *client.Client
	p *progress
	o tarcopy.Options
}

// copyIn copies from this machine or stdin into a VM.
func (cp copying) copyIn(ctx context.Context, src, dst place) error {
	arrived := cp.p.follow(ctx, cp.c, dst.vm)
	kind, real, err := cp.kind(ctx, dst)
	arrived(err == nil)
	if err != nil {
		return err
	}
	if src.stream() {
		if kind != tarcopy.Dir {
			e := vm.Errorf(vm.CodeInvalid, "%s is not a directory: a tar stream is unpacked into one", dst)
			if kind == tarcopy.Missing {
				return makeFirst(e, place{dst.vm, real})
			}
			return e
		}
		return cp.put(ctx, place{dst.vm, real}, func(w io.Writer) error {
			by, in := tarcopy.Compressed(cp.in)
			if by != "" {
				return vm.Errorf(vm.CodeInvalid, "the tar stream is compressed by %s", by).
					WithHint("decompress it on its way: %s -dc | banger vm cp - %s", by, dst)
			}
			if cp.o.Owner {
				_, err := io.Copy(w, in)
				return err
			}
			return tarcopy.Disown(w, in)
		})
	}
	stat := os.Lstat
	if cp.o.Follow || strings.HasSuffix(src.path, "/") || strings.HasSuffix(src.path, "/.") {
		stat = os.Stat
	}
	fi, err := stat(src.path)
	if err != nil {
		return err
	}
	t, err := tarcopy.Resolve(named(src.path), fi.IsDir(), real, kind)
	if known := (*vm.Error)(nil); errors.As(err, &known) && known.Code == vm.CodeNotFound {
		return makeFirst(known, place{dst.vm, path.Clean(real)})
	}
	if err != nil {
		return err
	}
	into := place{dst.vm, t.Dir}
	err = cp.put(ctx, into, func(w io.Writer) error { return tarcopy.Pack(ctx, w, src.path, t.Name, cp.o) })
	var missing *vm.Error
	if errors.As(err, &missing) && missing.Code == vm.CodeNotFound && !cp.noSuchVM(ctx, dst.vm) {
		return makeFirst(missing, into)
	}
	return err
}

// makeFirst has an error of a missing directory tell how it is made.
func makeFirst(e *vm.Error, dir place) error {
	return e.WithHint("make the directory: banger vm exec %s -- mkdir -p %s", dir.vm, sshconfig.Quote(dir.path))
}

// put sends what write writes. An error of write breaks the request off, so that the guest discards what is half there.
// A write that waits for its input is left waiting, until this process ends, when nobody wants any more what may come.
func (cp copying) put(ctx context.Context, dst place, write func(io.Writer) error) error {
	cp.p.copying()
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(io.MultiWriter(w, &cp.p.moved))
		written <- err // first: a request that this breaks off finds it here
		w.CloseWithError(err)
	}()
	err := cp.c.PutFiles(ctx, dst.vm, dst.path, r)
	r.CloseWithError(errStopped)
	if err != nil {
		select {
		case cause := <-written:
			return broken(err, cause)
		default:
			return err
		}
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case cause := <-written:
		return broken(nil, cause)
	}
}

// broken is why a copy failed: sent is the request's error, written that of what wrote its body.
func broken(sent, written error) error {
	// A body that nobody wants any more is closed by us or by net/http. What was answered, if anything, says why.
	if errors.Is(written, errStopped) || sent != nil && errors.Is(written, io.ErrClosedPipe) {
		return sent
	}
	if written != nil {
		return written // the cause; the other only tells that the request broke
	}
	return sent
}

var errStopped = errors.New("the receiver stopped")

// copyOut copies from a VM to this machine or stdout.
func (cp copying) copyOut(ctx context.Context, src, dst place) error {
	arrived := cp.p.follow(ctx, cp.c, src.vm)
	st, err := cp.c.StatFile(ctx, src.vm, path.Clean(src.path))
	arrived(err == nil)
	var missing *vm.Error
	if errors.As(err, &missing) && missing.Code == vm.CodeNotFound && !cp.noSuchVM(ctx, src.vm) {
		return missing.WithHint("see what is there: banger vm exec %s -- ls -a %s", src.vm, sshconfig.Quote(path.Dir(path.Clean(src.path))))
	}
	if err != nil {
		return err
	}
	from, isDir := path.Clean(src.path), fs.FileMode(st.Mode).IsDir()
	if cp.o.Follow || strings.HasSuffix(src.path, "/") || strings.HasSuffix(src.path, "/.") {
		kind, real, err := cp.kind(ctx, src)
		if err != nil {
			return err
		}
		from, isDir = path.Clean(real), kind == tarcopy.Dir
	}
	var t tarcopy.Target
	if !dst.stream() {
		if t, err = localTarget(src.path, isDir, dst.path); err != nil {
			return err
		}
	}
	r, err := cp.c.GetFiles(ctx, src.vm, from)
	if err != nil {
		return err
	}
	defer r.Close()
	stream := &source{Reader: r}
	if dst.stream() {
		cp.p.finish(true) // who reads the stream may write to the same terminal
		_, err = io.Copy(cp.out, stream)
	} else {
		cp.p.copying()
		err = tarcopy.Unpack(io.TeeReader(stream, &cp.p.moved), t, cp.o)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && stream.broke != nil { // an answer that has begun cannot tell why
		return vm.Errorf(vm.CodeUnavailable, "it was cut off: the daemon or the guest went away, or a file became shorter while it was read: %w", stream.broke).
			WithHint("run the command again; banger vm show %s tells how the VM is", src.vm)
	}
	return err
}

// source is what is read from, and the error that ended it early.
type source struct {
	io.Reader
	broke error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.broke = err
	}
	return n, err
}

func localTarget(src string, srcDir bool, dst string) (tarcopy.Target, error) {
	kind := tarcopy.Missing
	if fi, err := os.Stat(dst); err == nil {
		kind = tarcopy.File
		if fi.IsDir() {
			kind = tarcopy.Dir
		} else if real, err := filepath.EvalSymlinks(dst); err == nil && !strings.HasSuffix(dst, "/") {
			dst = real // the file is replaced, not the link to it
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return tarcopy.Target{}, err
	}
	return tarcopy.Resolve(src, srcDir, dst, kind)
}

// named gives a path without a name of its own (such as "..") the one it has in the file system.
func named(src string) string {
	if base := path.Base(src); base == ".." {
		if abs, err := filepath.Abs(src); err == nil {
			return abs
		}
	}
	return src
}

// kind finds what a path in a VM is, following links as the guest would; a trailing "/" or "/." of the path is kept.
func (cp copying) kind(ctx context.Context, p place) (tarcopy.Kind, string, error) {
	st, err := cp.c.StatFile(ctx, p.vm, path.Clean(p.path))
	if vm.CodeOf(err) == vm.CodeNotFound && !cp.noSuchVM(ctx, p.vm) {
		return tarcopy.Missing, p.path, nil
	}
	if err != nil {
		return tarcopy.Missing, p.path, err
	}
	if mode := fs.FileMode(st.Mode); mode&fs.ModeSymlink == 0 {
		return kindOf(mode), p.path, nil
	}
	kind, real, err := cp.through(ctx, p)
	if i := strings.LastIndex(p.path, "/"); p.path[i:] == "/" || p.path[i:] == "/." {
		real += p.path[i:]
	}
	return kind, real, err
}

func kindOf(mode fs.FileMode) tarcopy.Kind {
	if mode.IsDir() {
		return tarcopy.Dir
	}
	return tarcopy.File
}

// through walks a path of the guest part by part, for a link's ".." is the parent of the directory that the link lies in,
// which may have been reached by another link. The path that it returns has no link in it.
func (cp copying) through(ctx context.Context, p place) (tarcopy.Kind, string, error) {
	kind, at, links := tarcopy.Dir, "/", 0
	for todo := strings.Split(path.Clean(p.path), "/"); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		next := path.Join(at, part)
		if part == "" || part == "." || part == ".." {
			at, kind = next, tarcopy.Dir
			continue
		}
		st, err := cp.c.StatFile(ctx, p.vm, next)
		if vm.CodeOf(err) == vm.CodeNotFound {
			return tarcopy.Missing, path.Join(append([]string{next}, todo...)...), nil
		}
		if err != nil {
			return tarcopy.Missing, next, err
		}
		if fs.FileMode(st.Mode)&fs.ModeSymlink == 0 {
			at, kind = next, kindOf(fs.FileMode(st.Mode))
			continue
		}
		if links++; links > maxLinks {
			return tarcopy.Missing, next, fmt.Errorf("%s: too many symbolic links", p)
		}
		if path.IsAbs(st.LinkTarget) {
			at = "/"
		}
		todo = append(strings.Split(st.LinkTarget, "/"), todo...)
	}
	return kind, at, nil
}

// noSuchVM tells a missing VM from a missing file: an answer to HEAD has no body that would say.
func (cp copying) noSuchVM(ctx context.Context, ref string) bool {
	_, err := cp.c.VM(ctx, ref)
	return vm.CodeOf(err) == vm.CodeNotFound
}
