//go:build linux

package faults

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// settings are keys of the configuration, written in full, with values in TOML.
type settings map[string]string

// usual is what scenarios run with that say nothing else. No timeout strikes on a machine that is busy with other tests.
func usual() settings {
	return settings{
		"upstream.default.pool.max_idle":            "50",
		"upstream.default.pool.idle_timeout":        `"500ms"`,
		"upstream.default.timeout.idle":             `"1s"`,
		"upstream.default.timeout.request":          `"10s"`,
		"upstream.default.retry.on":                 `["connect", "unsent", "reset", "502", "503", "504", "timeout"]`,
		"upstream.default.circuit_breaker.window":   `"2s"`,
		"upstream.default.circuit_breaker.open_for": `"300ms"`,
		"limits.max_concurrent_requests":            "200",
		"limits.queue_timeout":                      `"200ms"`,
		"limits.header_timeout":                     `"500ms"`,
		"rate_limit.requests_per_second":            "0",
	}
}

// hurried are settings for faults that only time tells. A test among others is given more of it.
func hurried() settings {
	try, connect, handshake := "500ms", "1s", "2s"
	if long() {
		try, connect, handshake = "250ms", "250ms", "250ms"
	}
	return settings{
		"upstream.default.timeout.connect":         strconv.Quote(connect),
		"upstream.default.timeout.tls_handshake":   strconv.Quote(handshake),
		"upstream.default.timeout.response_header": `"3s"`,
		"upstream.default.timeout.idle":            `"500ms"`,
		"upstream.default.retry.try_timeout":       strconv.Quote(try),
	}
}

// proxy is the program, as a process of its own.
type proxy struct {
	t       testing.TB
	address string // where callers connect
	socket  string // where operators do
	cmd     *exec.Cmd
	records bytes.Buffer // what it logs; to be read once it has ended
	before  footprint
}

// newProxy starts a proxy before the endpoints. within is a network namespace, "" for that of the test. Callers reach it
// from the test's in any case: the listening socket is handed over, as systemd does.
func newProxy(t testing.TB, authority *demo.Authority, endpoints []*endpoint, within string, set ...settings) *proxy {
	t.Helper()
	dir := t.TempDir()
	client, err := authority.Client("faults")
	must(t, err)
	ca, err := authority.Write(dir, "ca")
	must(t, err)
	certificate, key, err := client.Write(dir, "client")
	must(t, err)

	all := usual()
	for _, s := range set {
		maps.Copy(all, s)
	}
	p := &proxy{t: t, socket: filepath.Join(dir, "admin.sock")}
	urls := make([]string, len(endpoints))
	for i, e := range endpoints {
		urls[i] = strconv.Quote("https://" + e.address)
	}
	maps.Copy(all, settings{
		"identity.default.certificate": strconv.Quote(certificate),
		"identity.default.key":         strconv.Quote(key),
		"trust.default.ca":             strconv.Quote(ca),
		"upstream.default.urls":        "[" + strings.Join(urls, ", ") + "]",
		"upstream.default.server_name": strconv.Quote(serverName),
		"admin.address":                `""`,
		"admin.socket":                 strconv.Quote(p.socket),
		"log.format":                   `"json"`,
	})
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s = %s\n", name, all[name])
	}
	file := filepath.Join(dir, "config.toml")
	must(t, os.WriteFile(file, []byte(text.String()), 0o600))

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	p.address = ln.Addr().String()
	socket, err := ln.(*net.TCPListener).File()
	must(t, err)
	defer socket.Close()
	self, err := os.Executable()
	must(t, err)
	command := []string{self, "run", "--config", file}
	if within != "" {
		command = append([]string{"ip", "netns", "exec", within}, command...)
	}
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = append(os.Environ(), asProxy+"=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	p.cmd.ExtraFiles = []*os.File{socket}
	p.cmd.Stdout, p.cmd.Stderr = &p.records, &p.records
	must(t, p.cmd.Start())
	t.Cleanup(p.stop)
	p.settle()
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settle waits until it serves, uses everything once, and takes the measure of it at rest.
func (p *proxy) settle() {
	p.t.Helper()
	must(p.t, recovered(p.address))
	var last footprint
	p.until("the proxy is at rest", func() bool {
		now := p.footprint()
		calm := now.descriptors == last.descriptors && now.goroutines == last.goroutines && p.idle() == 0
		last = now
		return calm
	})
	p.before = last
}

// until polls. That it was in vain fails the test, which goes on.
func (p *proxy) until(what string, holds func() bool) {
	p.t.Helper()
	for limit := time.Now().Add(patience); !holds(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(limit) {
			p.t.Errorf("waited in vain until %s", what)
			return
		}
	}
}

// stop ends the proxy in good order.
func (p *proxy) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the proxy ended with %v", err)
	}
	if p.t.Failed() {
		p.t.Logf("the proxy recorded:\n%.5000s", p.records.String())
	}
}

// ask makes a request to operators' pages.
func (p *proxy) ask(path string) (string, error) {
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket)
		},
	}
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get("http://localhost" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(body), err
}

// metric is the sum of the series of that name, whose labels contain all of labels.
func (p *proxy) metric(name string, labels ...string) (sum float64) {
	p.t.Helper()
	page, err := p.ask("/metrics")
	must(p.t, err)
lines:
	for line := range strings.Lines(page) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue lines
			}
		}
		n, err := strconv.ParseFloat(value, 64)
		must(p.t, err)
		sum += n
	}
	return sum
}

// idle counts the connections that the proxy holds.
func (p *proxy) idle() int {
	return int(p.metric("mtls_proxy_upstream_connections") + p.metric("mtls_proxy_active_connections"))
}

// footprint is what the proxy holds.
type footprint struct {
	goroutines, descriptors int
	resident                int // KiB
}

func (p *proxy) footprint() footprint {
	p.t.Helper()
	// What closes the sockets of callers, and of the upstream, opens the null device when it first needs it, and keeps it.
	const closers = 2
	// Likewise the socket that the kernel is asked on for the owners of connections.
	const diags = 1
	f := footprint{goroutines: int(p.metric("go_goroutines"))}
	dir := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	open, err := os.ReadDir(dir + "/fd")
	must(p.t, err)
	null, diag, netlink := 0, 0, p.netlink()
	for _, fd := range open {
		to, _ := os.Readlink(dir + "/fd/" + fd.Name())
		if how, err := fd.Info(); err == nil && to == os.DevNull && how.Mode().Perm()&0o200 != 0 { // not what it was started with
			null++
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && netlink[strings.TrimSuffix(inode, "]")] {
			diag++
		}
	}
	f.descriptors = len(open) - min(null, closers) - min(diag, diags)
	status, err := os.ReadFile(dir + "/status")
	must(p.t, err)
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if size, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			f.resident, err = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(size, "kB")))
			must(p.t, err)
		}
	}
	return f
}

// netlink has the inodes of the netlink sockets that the proxy can see.
func (p *proxy) netlink() map[string]bool {
	p.t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", p.cmd.Process.Pid))
	must(p.t, err)
	inodes := make(map[string]bool)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 0 {
			inodes[f[len(f)-1]] = true
		}
	}
	return inodes
}

// gaveBack waits until the proxy holds no more than before. Memory goes back to the system every few seconds, which only
// figures wait for.
func (p *proxy) gaveBack() (after footprint) {
	p.t.Helper()
	p.until(fmt.Sprintf("goroutines and descriptors are back to %+v", p.before), func() bool {
		after = p.footprint()
		return after.goroutines <= p.before.goroutines && after.descriptors <= p.before.descriptors
	})
	for limit := time.Now().Add(6 * time.Second); long() && after.resident > p.before.resident+2<<10 && time.Now().Before(limit); {
		<-time.After(500 * time.Millisecond)
		after.resident = p.footprint().resident
	}
	return after
}
