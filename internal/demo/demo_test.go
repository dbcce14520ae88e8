package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
)

// reverse is a proxy of the standard library, in mtls-proxy's place.
func reverse(t *testing.T) Start {
	return func(ctx context.Context, s Setup, ready func(string)) error {
		target, err := url.Parse(s.URL)
		if err != nil {
			return err
		}
		config := clientConfigFromFiles(t, s)
		tr := &http.Transport{TLSClientConfig: config}
		defer tr.CloseIdleConnections()
		srv := &http.Server{Handler: &httputil.ReverseProxy{
			Transport: tr,
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		}}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		ready("http://" + ln.Addr().String())
		<-ctx.Done()
		err = srv.Close()
		<-done
		return err
	}
}

func TestRunShowsARequestAndCleansUp(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &buffer{until: "Ctrl-C", then: cancel}
	if err := Run(ctx, out, reverse(t)); err != nil {
		t.Fatalf("Run: %v\n%s", err, out)
	}
	for _, want := range []string{"200 OK", `"target": "/hello?from=demo"`, "The upstream saw the certificate", "curl -i http://127.0.0.1:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRunTellsWhyTheProxyDidNotStart(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	cause := errors.New("address already in use")
	err := Run(context.Background(), io.Discard, func(context.Context, Setup, func(string)) error { return cause })
	if !errors.Is(err, cause) {
		t.Errorf("Run = %v, want it to wrap %v", err, cause)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRunFailsWhenTheProxyAnswersWithAFault(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	out := &buffer{}
	err := Run(context.Background(), out, func(ctx context.Context, s Setup, ready func(string)) error {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, `{"fault":"connection_refused"}`)
		})}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		ready("http://" + ln.Addr().String())
		<-ctx.Done()
		srv.Close()
		<-done
		return nil
	})
	if err == nil || !strings.Contains(out.String(), "connection_refused") {
		t.Errorf("Run = %v, want an error, and the fault in the output:\n%s", err, out)
	}
}

func TestRunEndsQuietlyWhenItIsStoppedEarly(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	err := Run(ctx, io.Discard, func(ctx context.Context, _ Setup, _ func(string)) error {
		cancel()
		<-ctx.Done()
		return nil
	})
	if err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// buffer calls then when until has been written. Run writes from one goroutine.
type buffer struct {
	bytes.Buffer
	until string
	then  func()
}

func (b *buffer) Write(p []byte) (int, error) {
	n, err := b.Buffer.Write(p)
	if b.then != nil && strings.Contains(b.String(), b.until) {
		b.then()
		b.then = nil
	}
	return n, err
}
