package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger/internal/cli/tarcopy"
	"banger/internal/guest"
	"banger/internal/vm"
)

// upgradeTo takes the connection of a request over.
func upgradeTo(w http.ResponseWriter, token string) (net.Conn, *guestConn) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return nil, nil
	}
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+token+"\r\n\r\n")
	return conn, &guestConn{in: guest.NewFrameReader(rw.Reader), out: guest.NewFrameWriter(conn), raw: rw.Reader}
}

type guestConn struct {
	in    *guest.FrameReader
	out   *guest.FrameWriter
	raw   io.Reader
	times bool // it asked for the times of what it gets
}

func (f *fake) ssh(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if err := f.await(r, record); err != nil {
		refuse(w, err)
		return
	}
	conn, g := upgradeTo(w, guest.UpgradeRaw)
	io.Copy(conn, g.raw) // an echo
	conn.Close()
}

func (f *fake) exec(w http.ResponseWriter, r *http.Request) {
	var e guest.ExecRequest
	json.NewDecoder(r.Body).Decode(&e)
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if err := f.await(r, record); err != nil {
		refuse(w, err)
		return
	}
	conn, g := upgradeTo(w, guest.UpgradeExec)
	defer conn.Close()
	switch e.Argv[0] {
	case "daemon-dies":
		os.Exit(9)
	case "guest-dies":
		return
	case "old-agent": // of a banger that knew no jobs
		g.out.Write(guest.FrameStarted, nil)
		g.in.Next()
		return
	}
	j, mine := f.newJob(e), f.copyOf(record) // another request may change it, or be telling of it
	go func() {
		exit := j.run(e, filepath.Join(mine.Runtime.VMDir, "root"))
		if mine.Spec.AutoRemove {
			f.set(&mine, vm.StateRemoving)
		}
		j.end(exit)
	}()
	done := func() {
		if e.LingerMs >= 0 {
			f.forget(j)
		}
	}
	if how := j.serve(g, 0, done); how == guest.FrameBye {
		done()
	}
}

// run runs the command as a process of this machine, its working directory in the fake guest's root.
func (j *fakeJob) run(e guest.ExecRequest, root string) guest.ExecExit {
	cmd := exec.Command(e.Argv[0], e.Argv[1:]...)
	cmd.Dir = filepath.Join(root, e.Dir)
	cmd.Env = append(append(os.Environ(), "GUEST_USER="+e.User), e.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL} // a guest's processes go with its host's
	var stdin io.WriteCloser
	var tty *os.File
	var err error
	if e.TTY {
		cmd.SysProcAttr.Setsid = false // pty sets it
		if tty, err = pty.StartWithSize(cmd, &pty.Winsize{Rows: e.Rows, Cols: e.Cols}); err == nil {
			stdin = tty
		}
	} else {
		cmd.Stdout, cmd.Stderr = j.stream(guest.FrameStdout), j.stream(guest.FrameStderr)
		if e.Stdin {
			stdin, _ = cmd.StdinPipe()
		}
		err = cmd.Start()
	}
	if err != nil {
		code := 126
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = 127
		}
		return guest.ExecExit{Code: code, Reason: err.Error()}
	}
	j.began(cmd, stdin, tty)
	if e.TimeoutMs > 0 {
		late := time.AfterFunc(time.Duration(e.TimeoutMs)*time.Millisecond, func() { j.signal(syscall.SIGKILL, true) })
		defer late.Stop()
	}
	if tty != nil {
		io.Copy(j.stream(guest.FrameStdout), tty)
	}
	cmd.Wait()
	if j.late() {
		return guest.ExecExit{Code: guest.CodeTimeout, TimedOut: true}
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return guest.ExecExit{Code: 128 + int(status.Signal()), Signal: unix.SignalName(status.Signal())}
	}
	return guest.ExecExit{Code: status.ExitStatus()}
}

func (f *fake) files(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if err := f.await(r, record); err != nil {
		refuse(w, err)
		return
	}
	path := filepath.Join(record.Runtime.VMDir, "root", filepath.Clean("/"+r.FormValue("path")))
	fi, err := os.Lstat(path)
	if err != nil {
		refuse(w, vm.Errorf(vm.CodeNotFound, "there is no %s in VM %s", r.FormValue("path"), record.Name))
		return
	}
	switch r.Method {
	case http.MethodHead:
		link, _ := os.Readlink(path)
		b, _ := json.Marshal(guest.PathStat{Name: fi.Name(), Size: fi.Size(), Mode: uint32(fi.Mode()), LinkTarget: link})
		w.Header().Set(guest.StatHeader, base64.StdEncoding.EncodeToString(b))
	case http.MethodGet:
		tarcopy.Pack(context.Background(), w, path, filepath.Base(path), tarcopy.Options{Owner: true})
	case http.MethodPut:
		if filepath.Base(path) == "daemon-dies" {
			os.Exit(9)
		}
		untar := exec.Command("tar", "x", "-C", path)
		untar.Stdin = r.Body
		if out, err := untar.CombinedOutput(); err != nil {
			refuse(w, vm.Errorf(vm.CodeInvalid, "unpack in VM %s: %s", record.Name, out))
		}
	}
}
