package client

import (
	"context"
	"net/http"

	"banger/internal/api"
)

// Objects lists what of the host carries banger's mark, in the order of removal.
func (c *Client) Objects(ctx context.Context) (objects []api.HostObject, err error) {
	err = c.json(ctx, "looking for what banger has on this host", http.MethodGet, api.PathObjects, nil, &objects)
	return objects, err
}

// Fix removes orphans, and tells of each what became of it. One that is none any more is not in the answer.
func (c *Client) Fix(ctx context.Context, r api.FixRequest) (done []api.HostObject, err error) {
	err = c.json(ctx, "removing what belongs to no VM", http.MethodPost, api.PathFix, r, &done)
	return done, err
}
