package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrNotRunning says that no service answers on the socket.
var ErrNotRunning = errors.New("mtls-proxy is not running")

const (
	dialTimeout    = 2 * time.Second
	maxAnswerBytes = 16 << 20
)

// Client speaks to a running service through its Unix socket. It starts
// nothing, reads no configuration, and waits for an answer as long as its
// context does.
type Client struct {
	Socket  string        // "" means DefaultSocket
	Timeout time.Duration // of connecting; 0 means two seconds
}

// Reload returns once the service has reloaded or refused to. An error means
// that no verdict came.
func (c *Client) Reload(ctx context.Context) (ReloadResult, error) {
	var result ReloadResult
	status, body, err := c.do(ctx, http.MethodPost, reloadPath)
	if err != nil {
		return ReloadResult{}, fmt.Errorf("reload: %w", err)
	}
	if status != http.StatusOK && status != http.StatusUnprocessableEntity {
		return ReloadResult{}, fmt.Errorf("reload: %w", c.unexpected(status, body))
	}
	if err := json.Unmarshal(body, &result); err != nil {
		return ReloadResult{}, fmt.Errorf("reload: read the answer of %s: %w", c.path(), err)
	}
	result.OK = result.OK && status == http.StatusOK
	return result, nil
}

// Status returns what the service says about itself, as JSON.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	status, body, err := c.do(ctx, http.MethodGet, "/status")
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	if status != http.StatusOK || !json.Valid(body) {
		return nil, fmt.Errorf("status: %w", c.unexpected(status, body))
	}
	return bytes.TrimSpace(body), nil
}

func (c *Client) path() string {
	if c.Socket == "" {
		return DefaultSocket
	}
	return c.Socket
}

func (c *Client) do(ctx context.Context, method, path string) (status int, body []byte, err error) {
	dialer := net.Dialer{Timeout: c.Timeout}
	if dialer.Timeout == 0 {
		dialer.Timeout = dialTimeout
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", c.path())
		},
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, c.explain(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer of %s: %w", c.path(), err)
	}
	return resp.StatusCode, body, nil
}

// explain says what an error of the socket means for the person at the prompt.
func (c *Client) explain(err error) error {
	path := c.path()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (no socket at %s; --socket names another place)", ErrNotRunning, path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (it has stopped: nobody answers on %s)", ErrNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("permission denied on %s: %s", path, admitted(path))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the service closed the connection without an answer: %w", err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// admitted says who may use the socket, as far as its file or its folder tell.
func admitted(path string) string {
	for _, p := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(p)
		if err != nil {
			continue // the folder may be closed to us as well
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Gid == 0 || info.Mode().Perm()&0o070 == 0 {
			continue
		}
		gid := strconv.Itoa(int(st.Gid))
		if g, err := user.LookupGroupId(gid); err == nil {
			gid = g.Name
		}
		return fmt.Sprintf("only root and the members of group %s may use it; try sudo", gid)
	}
	return "only root may use it; try sudo"
}

// unexpected tells an answer that is not the one we asked for.
func (c *Client) unexpected(status int, body []byte) error {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		return fmt.Errorf("%s answered %d: %s", c.path(), status, problem.Detail)
	}
	return fmt.Errorf("%s answered %d: is that the socket of mtls-proxy?", c.path(), status)
}
