package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// Setup is what a proxy needs to reach the demo's upstream.
type Setup struct {
	URL         string // of the upstream
	CA          string // file: whom to trust
	Certificate string // file: the client's chain
	Key         string // file: its key
}

// Start runs a proxy for s until ctx is done. It calls ready once, with the
// proxy's own base URL, when requests are answered there.
type Start func(ctx context.Context, s Setup, ready func(baseURL string)) error

// Run shows the whole thing: it makes an authority, starts an upstream that
// demands a client certificate, has start run a proxy before it, sends one
// request through, tells w what came of it, and keeps everything running until
// ctx is done. It leaves nothing behind.
func Run(ctx context.Context, w io.Writer, start Start) (err error) {
	dir, err := os.MkdirTemp("", "mtls-proxy-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	authority, err := NewAuthority(AuthorityOptions{})
	if err != nil {
		return fmt.Errorf("demo: make an authority: %w", err)
	}
	client, err := authority.Client("demo client")
	if err != nil {
		return fmt.Errorf("demo: issue a client certificate: %w", err)
	}
	var s Setup
	if s.CA, err = authority.Write(dir, "ca"); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if s.Certificate, s.Key, err = client.Write(dir, "client"); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	upstream, err := NewUpstream(UpstreamOptions{Authority: authority})
	if err != nil {
		return fmt.Errorf("demo: start an upstream: %w", err)
	}
	defer func() { err = errors.Join(err, upstream.Close()) }()
	s.URL = upstream.URL()
	fmt.Fprintf(w, "A throwaway authority was made, and with it:\n"+
		"  client certificate  %s (serial %s)\n"+
		"  upstream            %s, which demands it\n\n", s.Certificate, client.Serial(), s.URL)

	pctx, stop := context.WithCancel(ctx)
	defer stop()
	ready := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- start(pctx, s, func(baseURL string) { ready <- baseURL })
	}()
	select {
	case err := <-ended:
		if err == nil && ctx.Err() == nil {
			err = errors.New("it ended before it was ready")
		}
		if err != nil {
			return fmt.Errorf("demo: run the proxy: %w", err)
		}
		return nil
	case base := <-ready:
		if err := show(ctx, w, base, client); err != nil && ctx.Err() == nil {
			stop()
			<-ended
			return fmt.Errorf("demo: %w", err)
		}
	}
	// Only now may the proxy go: it drains first, and tells what went wrong.
	if err := <-ended; err != nil {
		return fmt.Errorf("demo: run the proxy: %w", err)
	}
	return nil
}

// show sends a request through the proxy at base and tells what came back.
func show(ctx context.Context, w io.Writer, base string, client *Issued) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true} // no proxy from the environment, nothing left open
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/hello?from=demo", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "mtls-proxy-demo")
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("send a request through the proxy: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	fmt.Fprintf(w, "GET %s/hello?from=demo, in plain HTTP, was answered:\n\n%s %s\n%s\n", base, resp.Proto, resp.Status, body)
	var seen Seen
	if err := json.Unmarshal(body, &seen); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the upstream was not reached: the proxy answered %s", resp.Status)
	}
	if seen.Certificate == nil || seen.Certificate.Serial != client.Serial() {
		return errors.New("the upstream saw another certificate than the client's")
	}
	fmt.Fprintf(w, "The upstream saw the certificate of %q, serial %s, over %s.\n\n", seen.Certificate.Subject, seen.Certificate.Serial, seen.TLS)
	fmt.Fprintf(w, "Try it:\n"+
		"  curl -i %[1]s/hello\n"+
		"  curl -N '%[1]s/sse?n=5&every=1s'                 events as they happen\n"+
		"  curl -i %[1]s/upload --data-binary @/etc/hostname\n"+
		"  curl -i %[1]s/status/503                         the upstream's own error\n"+
		"  curl -i %[1]s/hello -H 'Origin: https://evil.example'   a web page is refused\n"+
		"Ctrl-C ends it.\n", base)
	return nil
}
