package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestClientTellsAVerdict(t *testing.T) {
	want := ReloadResult{Generation: 3, Error: "2 problems", Problems: []string{"a.toml:1:1: x: unknown key", "b.toml:2:2: y: unknown key"}}
	o := options()
	o.Reload = func(context.Context) ReloadResult { return want }
	set := settings(t)
	start(t, o, set)
	got, err := (&Client{Socket: set.Socket}).Reload(t.Context())
	if err != nil || got.OK || got.Generation != want.Generation || got.Error != want.Error || !slices.Equal(got.Problems, want.Problems) {
		t.Errorf("Reload() = %+v, %v; want %+v", got, err, want)
	}
}

func TestClientReadsStatus(t *testing.T) {
	set := settings(t)
	start(t, options(), set)
	got, err := (&Client{Socket: set.Socket}).Status(t.Context())
	if err != nil || !strings.Contains(string(got), `"generation": 3`) {
		t.Errorf("Status() = %s, %v; want generation 3", got, err)
	}
}

func TestClientExplainsWhyThereIsNoAnswer(t *testing.T) {
	// speak answers every connection with text.
	speak := func(text string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = c.Read(make([]byte, 4096))
					_, _ = io.WriteString(c, text)
					c.Close()
				}
			}()
			t.Cleanup(func() {
				ln.Close()
				<-done
			})
		}
	}
	for _, tt := range []struct {
		name       string
		put        func(t *testing.T, path string)
		want       string
		notRunning bool
	}{
		{name: "no socket", put: func(*testing.T, string) {}, want: "mtls-proxy is not running (no socket at ", notRunning: true},
		{name: "a stale socket", want: "mtls-proxy is not running (it has stopped", notRunning: true, put: func(t *testing.T, path string) {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			ln.SetUnlinkOnClose(false)
			ln.Close()
		}},
		{name: "silence", put: speak(""), want: "closed the connection without an answer"},
		{name: "another program", put: speak("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), want: "is that the socket of mtls-proxy?"},
		{name: "a refusal", put: speak("HTTP/1.1 403 No\r\nContent-Length: 16\r\n\r\n" + `{"detail":"why"}`), want: "answered 403: why"},
		{name: "no HTTP", put: speak("SSH-2.0-x\r\n"), want: "malformed HTTP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			tt.put(t, path)
			_, err := (&Client{Socket: path}).Status(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrNotRunning) != tt.notRunning {
				t.Errorf("Status() = %v; want it to contain %s", err, tt.want)
			}
		})
	}
}

func TestClientSaysWhoMayUseTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o660); err != nil {
		t.Fatal(err)
	}
	c := Client{Socket: path}
	err := c.explain(&os.SyscallError{Syscall: "connect", Err: os.ErrPermission})
	if want := "permission denied on " + path + ": only "; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("explain() = %v; want it to begin with %s", err, want)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := errors.Join(os.Chown(path, 0, 1), os.Chmod(path, 0o660)); err != nil {
		t.Fatal(err)
	}
	if got, want := admitted(path), "only root and the members of group daemon may use it; try sudo"; got != want {
		t.Errorf("admitted() = %q; want %q", got, want)
	}
}

func TestClientChangesEndpoints(t *testing.T) {
	set := settings(t)
	start(t, options(), set)
	c := &Client{Socket: set.Socket}
	for _, resume := range []bool{false, true} {
		got, err := c.ChangeEndpoint(t.Context(), EndpointChange{Upstream: "u & v", Address: "a:1", Resume: resume, By: "nobody"})
		if err != nil || !got.OK || len(got.Changed) != 1 || !strings.HasPrefix(got.Changed[0], fmt.Sprintf("u & v a:1 resume=%v by ", resume)) || strings.Contains(got.Changed[0], "nobody") {
			t.Errorf("ChangeEndpoint() = %+v, %v", got, err)
		}
	}
	if got, err := c.ChangeEndpoint(t.Context(), EndpointChange{Upstream: "u", Address: "b:1"}); err != nil || got.OK || got.Error != "there is no b:1" {
		t.Errorf("ChangeEndpoint() = %+v, %v; want a refusal", got, err)
	}
	if _, err := c.ChangeEndpoint(t.Context(), EndpointChange{Upstream: "u"}); err == nil || !strings.Contains(err.Error(), "answered 400: this needs") {
		t.Errorf("ChangeEndpoint() without an address: %v", err)
	}
}
