package agent

import (
	"errors"
	"io"
	"os"

	"github.com/pkg/sftp"

	"banger/internal/guest"
)

// sftpName is argv[0] of this program where it is the subsystem sftp of one ssh session, on its stdin and stdout. An image
// need not have a server of its own, and in the agent's process a user could do all that root can.
const sftpName = "banger-sftp"

// startSFTP is start for that program. The request has no Argv.
func (s *Server) startSFTP(req guest.ExecRequest, stdout, stderr io.Writer) (*process, error) {
	req.Argv = []string{"/proc/self/exe"} // it lies in the initramfs, where no path of the guest's leads
	c, err := s.prepare(req)
	if err != nil {
		return nil, err
	}
	c.argv = []string{sftpName}
	return s.launch(c, req, stdout, stderr)
}

func serveSFTP() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	server, err := sftp.NewServer(stdio{os.Stdin, os.Stdout}, sftp.WithServerWorkingDirectory(dir))
	if err != nil {
		return err
	}
	if err := server.Serve(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

type stdio struct {
	io.Reader
	io.WriteCloser
}
