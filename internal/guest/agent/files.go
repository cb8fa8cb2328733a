package agent

import (
	"archive/tar"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

// handleFiles gives and takes tar streams, as Docker's archive API does:
//
//	HEAD ?path=P    what P is, in the header guest.StatHeader
//	GET  ?path=P    P and all below it; its base name is the top entry ("." for /)
//	PUT  ?path=DIR  unpacks the body in an existing directory
//
// P is absolute. A symbolic link at its end is meant itself, unless P ends with "/" or follow=1 is given. An answer
// other than 2xx has an ErrorBody. A GET that goes wrong on its way breaks the connection: what ends, is whole.
func (s *Server) handleFiles(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("path")
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) {
		writeFileError(w, vm.Errorf(vm.CodeInvalid, "path %q is not absolute", name))
		return
	}
	follow := strings.HasSuffix(name, "/") || r.URL.Query().Get("follow") == "1"
	name = path.Clean(name)
	switch r.Method {
	case http.MethodHead, http.MethodGet:
		giveFiles(w, r, name, follow)
	case http.MethodPut:
		s.takeFiles(w, r, name)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT")
		writeError(w, http.StatusMethodNotAllowed, vm.Errorf(vm.CodeInvalid, "method %s on files", r.Method))
	}
}

func giveFiles(w http.ResponseWriter, r *http.Request, name string, follow bool) {
	stat := os.Lstat
	if follow {
		stat = os.Stat
	}
	fi, err := stat(name)
	if err != nil {
		writeFileError(w, err)
		return
	}
	b, err := json.Marshal(pathStat(name, fi))
	if err != nil {
		writeFileError(w, err)
		return
	}
	w.Header().Set(guest.StatHeader, base64.StdEncoding.EncodeToString(b))
	w.Header().Set("Content-Type", "application/x-tar")
	if r.Method == http.MethodHead {
		return
	}
	out := begun{w: w}
	p := packer{top: name, follow: follow}
	err = p.pack(r.Context(), &out)
	switch {
	case err == nil:
	case !out.yet:
		writeFileError(w, err)
	default:
		breakOff(w)
	}
}

// begun knows whether an answer has begun.
type begun struct {
	w   io.Writer
	yet bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yet = true
	return b.w.Write(p)
}

// breakOff ends the connection in the middle of an answer: the client must not take it for whole.
func breakOff(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func pathStat(name string, fi fs.FileInfo) guest.PathStat {
	st := guest.PathStat{Name: path.Base(name), Size: fi.Size(), Mode: uint32(fi.Mode()), ModTime: fi.ModTime().Unix()}
	if fi.Mode()&fs.ModeSymlink != 0 {
		st.LinkTarget, _ = os.Readlink(name)
	}
	return st
}

func (s *Server) takeFiles(w http.ResponseWriter, r *http.Request, dir string) {
	done, ok := s.uploads.begin(w)
	if !ok {
		writeFileError(w, errPoweredOff)
		return
	}
	fi, err := os.Stat(dir)
	if err == nil && !fi.IsDir() {
		err = vm.Errorf(vm.CodeInvalid, "%s is not a directory", dir)
	}
	if err == nil {
		err = unpack(r.Context(), dir, r.Body)
	}
	done()
	if err != nil && s.uploads.ended() {
		err = errPoweredOff
	}
	if err != nil {
		answerEarly(w, r)
		writeFileError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// writeFileError answers with the status that err deserves.
func writeFileError(w http.ResponseWriter, err error) {
	var known *vm.Error
	if !errors.As(err, &known) {
		known = vm.Errorf(fileErrorCode(err), "%w", err)
	}
	status := http.StatusInternalServerError
	switch known.Code {
	case vm.CodeInvalid:
		status = http.StatusBadRequest
	case vm.CodeNotFound:
		status = http.StatusNotFound
	case vm.CodeConflict:
		status = http.StatusConflict
	case vm.CodeNoSpace:
		status = http.StatusInsufficientStorage
	}
	writeError(w, status, known)
}

// escapes is what os.Root says of a link that leads out; it has no error value for it.
const escapes = "path escapes from parent"

func fileErrorCode(err error) vm.Code {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return vm.CodeNotFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return vm.CodeNoSpace
	case errors.Is(err, fs.ErrExist), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EROFS):
		return vm.CodeConflict
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), strings.Contains(err.Error(), escapes),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrHeader):
		return vm.CodeInvalid
	}
	return vm.CodeInternal
}
