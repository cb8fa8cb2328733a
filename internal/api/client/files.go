package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

func filesPath(ref, file string) string {
	return path(api.PathVMFiles, ref) + "?" + url.Values{"path": {file}}.Encode()
}

// StatFile describes one path in a VM, links not followed. A missing one is CodeNotFound.
func (c *Client) StatFile(ctx context.Context, ref, file string) (guest.PathStat, error) {
	what := "looking at " + ref + ":" + file
	resp, err := c.send(ctx, what, http.MethodHead, filesPath(ref, file), nil, nil)
	if err != nil && vm.CodeOf(err) != vm.CodeUnavailable && ctx.Err() == nil {
		// An answer to HEAD has no body: GET fails alike, and says why.
		body, gerr := c.GetFiles(ctx, ref, file)
		if gerr == nil {
			body.Close()
			gerr = err
		}
		return guest.PathStat{}, gerr
	}
	if err != nil {
		return guest.PathStat{}, err
	}
	defer resp.Body.Close()
	var st guest.PathStat
	b, err := base64.StdEncoding.DecodeString(resp.Header.Get(guest.StatHeader))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return st, vm.Errorf(vm.CodeInternal, "%s: the answer is not understood: %w", what, err)
	}
	return st, nil
}

// GetFiles opens a path in a VM as a tar stream, whose first entry is the path's base name.
func (c *Client) GetFiles(ctx context.Context, ref, file string) (io.ReadCloser, error) {
	resp, err := c.send(ctx, "copying from "+ref+":"+file, http.MethodGet, filesPath(ref, file), nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// PutFiles unpacks a tar stream into a directory in a VM. An error of r ends the copy; nothing half-written stays.
func (c *Client) PutFiles(ctx context.Context, ref, dir string, r io.Reader) error {
	resp, err := c.send(ctx, "copying to "+ref+":"+dir, http.MethodPut, filesPath(ref, dir),
		http.Header{"Content-Type": {"application/x-tar"}}, r)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}
