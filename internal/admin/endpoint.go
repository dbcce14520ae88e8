package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

const (
	drainPath  = "/endpoint/drain"
	resumePath = "/endpoint/resume"
)

// changePaths are those that take POST, on the Unix socket alone.
func changePaths() []string { return []string{reloadPath, drainPath, resumePath} }

// EndpointChange is a wish to put endpoints of an upstream aside, or to take
// that back.
type EndpointChange struct {
	Upstream string
	Address  string // one endpoint, or a name or address that several have
	Resume   bool
	By       string // who wishes it, as the socket tells; "" when it does not
}

// EndpointResult is what became of an EndpointChange, as it goes over the
// socket.
type EndpointResult struct {
	OK        bool     `json:"ok"`
	Changed   []string `json:"changed"`            // endpoints that were not that way before
	Unchanged []string `json:"unchanged"`          // and those that were
	Error     string   `json:"error,omitempty"`    // why nothing was done, in one line
	Warnings  []string `json:"warnings,omitempty"` // what it means for requests
}

// changeEndpoint answers POST /endpoint/drain and /endpoint/resume, which say
// ?upstream=NAME&address=ADDRESS.
func (s *Server) changeEndpoint(stop context.Context, w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	change := EndpointChange{
		Upstream: query.Get("upstream"), Address: query.Get("address"), Resume: r.URL.Path == resumePath, By: peerOf(r.Context()),
	}
	if change.Upstream == "" || change.Address == "" {
		(&refusal{status: http.StatusBadRequest, detail: "this needs ?upstream=NAME&address=ADDRESS"}).write(w)
		return
	}
	// Lists are never null for who reads the JSON.
	result := s.options.Endpoint(stop, change)
	result.Changed, result.Unchanged = append([]string{}, result.Changed...), append([]string{}, result.Unchanged...)
	status := http.StatusOK
	if !result.OK {
		status = http.StatusUnprocessableEntity
	}
	s.json(w, status, result)
}

// ChangeEndpoint returns once the change holds for every request from then on,
// or was refused. Who wishes it is for the service to find out. An error means
// that no verdict came.
func (c *Client) ChangeEndpoint(ctx context.Context, change EndpointChange) (EndpointResult, error) {
	what, path := "drain", drainPath
	if change.Resume {
		what, path = "resume", resumePath
	}
	path += "?" + url.Values{"upstream": {change.Upstream}, "address": {change.Address}}.Encode()
	status, body, err := c.do(ctx, http.MethodPost, path)
	if err != nil {
		return EndpointResult{}, fmt.Errorf("%s: %w", what, err)
	}
	if !slices.Contains([]int{http.StatusOK, http.StatusUnprocessableEntity}, status) {
		return EndpointResult{}, fmt.Errorf("%s: %w", what, c.unexpected(status, body))
	}
	var result EndpointResult
	if err := json.Unmarshal(body, &result); err != nil {
		return EndpointResult{}, fmt.Errorf("%s: read the answer of %s: %w", what, c.path(), err)
	}
	result.OK = result.OK && status == http.StatusOK
	return result, nil
}
