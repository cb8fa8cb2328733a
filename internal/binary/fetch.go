package binary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/vm"
)

const (
	stallTime    = time.Minute      // nothing came for so long: the download is given up
	downloadTime = 30 * time.Minute // of everything
	noteEvery    = 3 * time.Second
)

// parcel is what was asked for, on this host's disk.
type parcel struct {
	path   string // a file or a directory
	name   string // as its origin calls it
	beside sums   // the digests that lie beside it
	safe   bool   // these came over no network, or over one that nobody can change them on
}

// newClient makes a client that goes through the proxy that the daemon's environment names.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   30 * time.Second,
			ResponseHeaderTimeout: stallTime,
			ForceAttemptHTTP2:     true,
			DisableCompression:    true, // a server may call an archive a compressed stream: it is wanted as it is
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 10 {
				return errors.New("it redirects without end")
			}
			if r.URL.Scheme != "https" && via[0].URL.Scheme == "https" {
				return errors.New("it redirects from https to " + r.URL.Scheme)
			}
			return nil
		},
	}
}

// obtain brings what from names onto this host's disk, below staging where it has to be downloaded.
func (l *Library) obtain(ctx context.Context, from, staging string, note func(string)) (parcel, error) {
	if strings.Contains(from, "://") {
		u, err := parseURL(from)
		if err != nil {
			return parcel{}, err
		}
		return l.download(ctx, u, staging, note)
	}
	p := parcel{path: from, name: from, safe: true, beside: sums{}}
	st, err := os.Stat(from)
	if err != nil {
		return parcel{}, err
	}
	files := []string{filepath.Join(filepath.Dir(from), fileSums), from + ".sha256.txt"}
	if st.IsDir() {
		files = []string{filepath.Join(from, fileSums)}
	}
	for _, name := range files {
		if !isFile(name) {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return parcel{}, err
		}
		more, err := readSums(reader{ctx, f})
		if err := errors.Join(err, f.Close()); err != nil {
			return parcel{}, err
		}
		for of, sum := range more {
			p.beside[of] = sum
		}
	}
	return p, nil
}

func parseURL(from string) (*url.URL, error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, vm.Errorf(vm.CodeInvalid, "%q is not an http or https URL", from)
	}
	return u, nil
}

// public is a URL as it may be shown and kept: without a password, and without a query, which may hold a key.
func public(u *url.URL) string {
	c := *u
	c.RawQuery, c.Fragment = "", ""
	return c.Redacted()
}

func (l *Library) download(ctx context.Context, u *url.URL, staging string, note func(string)) (parcel, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, downloadTime, fmt.Errorf("it was not done after %v", downloadTime))
	defer cancel()
	p := parcel{path: filepath.Join(staging, "download"), name: path.Base(u.Path), safe: u.Scheme == "https", beside: sums{}}
	f, err := os.OpenFile(p.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return parcel{}, err
	}
	note("downloading " + public(u))
	err = l.get(ctx, u, func(r io.Reader, size int64) error { return copyNoting(f, r, size, maxArchive, note) })
	if err := errors.Join(err, f.Close()); err != nil {
		return parcel{}, err
	}
	beside, all := *u, *u
	beside.Path, beside.RawPath = u.Path+".sha256.txt", ""
	all.Path, all.RawPath = path.Join(path.Dir(u.Path), fileSums), ""
	for _, at := range []*url.URL{&beside, &all} {
		err := l.get(ctx, at, func(r io.Reader, _ int64) (err error) {
			p.beside, err = readSums(r)
			return err
		})
		if err == nil {
			break
		}
		if vm.CodeOf(err) != vm.CodeNotFound {
			return parcel{}, err
		}
	}
	return p, nil
}

// get reads what is at a URL. vm.CodeNotFound when the server says that it has nothing for us there, vm.CodeUnavailable
// when it cannot be asked.
func (l *Library) get(ctx context.Context, u *url.URL, read func(r io.Reader, size int64) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(l.stall, func() { cancel(fmt.Errorf("nothing came for %v", l.stall)) })
	defer late.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return vm.Errorf(vm.CodeInvalid, "download %s: %w", public(u), err)
	}
	resp, err := l.client.Do(req)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		switch {
		case resp.StatusCode == http.StatusOK:
			err = read(&lively{reader{ctx, resp.Body}, late, l.stall}, resp.ContentLength)
			if err == nil {
				err = context.Cause(ctx) // a server that sees us hang up may still manage to end its answer well
			}
		case resp.StatusCode/100 == 4 && resp.StatusCode != http.StatusProxyAuthRequired && resp.StatusCode != http.StatusTooManyRequests:
			return vm.Errorf(vm.CodeNotFound, "download %s: the server answers %s", public(u), resp.Status).
				WithHint("is there such a version? --from names another source")
		default:
			err = fmt.Errorf("the server answers %s", resp.Status)
		}
	}
	return failed(ctx, u, err)
}

// failed says why a download ended.
func failed(ctx context.Context, u *url.URL, err error) error {
	var known *vm.Error
	var onHost *os.PathError
	if err == nil || errors.As(err, &known) || errors.As(err, &onHost) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	var request *url.Error // names the whole URL again
	if errors.As(err, &request) {
		err = request.Err
	}
	return vm.Errorf(vm.CodeUnavailable, "download %s: %w", public(u), err).
		WithHint("check the network, and HTTPS_PROXY in the environment bangerd is started in; or download it elsewhere and give it with --from FILE")
}

// lively puts off the end that a download which stands still comes to.
type lively struct {
	r     io.Reader
	late  *time.Timer
	stall time.Duration
}

func (l *lively) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.late.Reset(l.stall)
	}
	return n, err
}

// copyNoting copies at most limit bytes and tells now and then how far it is. size is what is expected, -1 = not known.
func copyNoting(w io.Writer, r io.Reader, size, limit int64, note func(string)) error {
	var done int64
	told := time.Now()
	for done <= limit {
		n, err := io.CopyN(w, r, 256<<10)
		done += n
		if errors.Is(err, io.EOF) {
			if size >= 0 && done != size {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
		if now := time.Now(); now.Sub(told) >= noteEvery {
			told = now
			if size > 0 {
				note(fmt.Sprintf("downloaded %d of %d MiB", done>>20, size>>20))
			} else {
				note(fmt.Sprintf("downloaded %d MiB", done>>20))
			}
		}
	}
	return vm.Errorf(vm.CodeInvalid, "it has more than %d MiB, which no release has", limit>>20)
}
