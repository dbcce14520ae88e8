//go:build linux

package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// serverName is who every endpoint proves to be.
const serverName = "upstream.test"

// endpoint is a server of an upstream, whose troubles begin and end while it runs.
type endpoint struct {
	t       testing.TB
	address string
	config  *tls.Config
	listen  func(address string) (net.Listener, error)
	seen    *ledger

	trouble atomic.Pointer[trouble]
	mute    atomic.Bool // takes connections and says nothing, not even in TLS

	wg sync.WaitGroup

	mu     sync.Mutex // guards what follows
	ln     *net.TCPListener
	conns  map[*net.TCPConn]bool
	healed chan struct{} // closed when trouble is over
	stuff  []int         // descriptors that fill a queue
	holed  bool          // filter is on
}

// lastAddress makes the addresses of endpoints differ. All of 127.0.0.0/8 is this host, and nobody's outgoing
// connection gets a port there, so that an endpoint can leave and come back.
var lastAddress atomic.Uint32

func nextAddress() string {
	n, pid := lastAddress.Add(1), os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:8443", 64+pid>>8%128, 1+pid%250, 1+n%250)
}

func newEndpoint(t testing.TB, address string, authority *demo.Authority, seen *ledger) *endpoint {
	t.Helper()
	e := &endpoint{t: t, address: address, seen: seen, conns: make(map[*net.TCPConn]bool), healed: make(chan struct{})}
	e.listen = listen
	server, err := authority.Server(serverName)
	if err != nil {
		t.Fatal(err)
	}
	e.config = &tls.Config{
		Certificates: []tls.Certificate{server.TLS()},
		NextProtos:   []string{"http/1.1"},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    authority.Pool(),
	}
	return e
}

// listen listens for plain TCP: what Go prefers, multipath TCP, takes no filters.
func listen(address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp", address)
}

// up begins to listen.
func (e *endpoint) up() {
	ln, err := e.listen(e.address)
	if err != nil {
		e.t.Errorf("listen again: %v", err)
		return
	}
	e.mu.Lock()
	e.ln = ln.(*net.TCPListener)
	e.mu.Unlock()
	e.wg.Go(func() { e.accept(ln) })
}

// down ends everything at once, as the kernel does for a process that was killed.
func (e *endpoint) down() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ln != nil {
		e.ln.Close()
		e.ln = nil
	}
	for c := range e.conns {
		c.Close()
	}
}

// cut ends the connections there are.
func (e *endpoint) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.Close()
	}
}

func (e *endpoint) close() {
	e.heal()
	e.down()
	e.wg.Wait()
}

func (e *endpoint) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		raw := c.(*net.TCPConn)
		e.mu.Lock()
		e.conns[raw] = true
		e.mu.Unlock()
		e.wg.Go(func() {
			e.serve(raw)
			raw.Close()
			e.mu.Lock()
			delete(e.conns, raw)
			e.mu.Unlock()
		})
	}
}

// peer is a connection to an endpoint.
type peer struct {
	*tls.Conn
	raw *net.TCPConn
	r   *bufio.Reader
	at  *endpoint
}

func (e *endpoint) serve(raw *net.TCPConn) {
	if e.mute.Load() {
		<-e.healing()
	}
	p := &peer{Conn: tls.Server(raw, e.config), raw: raw, at: e}
	if p.Handshake() != nil {
		return
	}
	p.r = bufio.NewReaderSize(p.Conn, 16<<10)
	for {
		if _, err := p.r.Peek(1); err != nil {
			return
		}
		if t := e.trouble.Load(); t != nil && t.unread {
			e.seen.arrivedUnread(p.r)
			t.strike(p, nil)
			return
		}
		req, err := http.ReadRequest(p.r)
		if err != nil {
			return
		}
		e.seen.arrived(req.Header.Get(idField))
		if !e.exchange(p, req) {
			return
		}
	}
}

// exchange answers one request and reports whether there may be another.
func (e *endpoint) exchange(p *peer, req *http.Request) bool {
	t := e.trouble.Load()
	if t == nil || !t.deaf {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return false
		}
	}
	if t == nil {
		return p.answer(req)
	}
	return t.strike(p, req)
}

// answer is what a healthy endpoint says. It names the request, so that an answer to another one would be noticed.
func (p *peer) answer(req *http.Request) bool {
	body := answerTo(req.Header.Get(idField))
	_, err := fmt.Fprintf(p, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err == nil
}

// reset ends the connection with a TCP reset.
func (p *peer) reset() {
	_ = p.raw.SetLinger(0)
	p.raw.Close()
}

// healing is closed when the present trouble is over.
func (e *endpoint) healing() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.healed
}

// heal ends every trouble but being down.
func (e *endpoint) heal() {
	e.mute.Store(false)
	e.trouble.Store(nil)
	e.filter(false)
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.healed)
	e.healed = make(chan struct{})
	for _, fd := range e.stuff {
		syscall.Close(fd)
	}
	e.stuff = nil
}

// filter drops every packet that arrives at the endpoint, or no longer does: a hole into which connections and requests
// disappear without a sign, as behind a firewall or a cable that was pulled.
func (e *endpoint) filter(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if on == e.holed {
		return
	}
	e.holed = on
	all := make([]syscall.Conn, 0, len(e.conns)+1)
	if e.ln != nil {
		all = append(all, e.ln)
	}
	for c := range e.conns {
		all = append(all, c)
	}
	for _, c := range all {
		raw, err := c.SyscallConn()
		if err != nil {
			continue // closed meanwhile
		}
		_ = raw.Control(func(fd uintptr) {
			// A module for one instruction would be too much.
			if on {
				//lint:ignore SA1019 see above
				err = syscall.AttachLsf(int(fd), []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}})
			} else {
				//lint:ignore SA1019 see above
				err = syscall.DetachLsf(int(fd))
			}
			if err != nil && (on || !errors.Is(err, syscall.ENOENT)) { // it came after the filter
				e.t.Errorf("filter packets: %v", err)
			}
		})
	}
}

// jam listens with a queue that is full: nobody accepts, and further connections are not even begun.
func (e *endpoint) jam() {
	e.down()
	address, err := net.ResolveTCPAddr("tcp4", e.address)
	if err != nil {
		e.t.Error(err)
		return
	}
	sa := &syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())}
	e.mu.Lock()
	defer e.mu.Unlock()
	socket := func() int {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			e.t.Error(err)
			return -1
		}
		e.stuff = append(e.stuff, fd)
		return fd
	}
	fd := socket()
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := syscall.Bind(fd, sa); err != nil {
		e.t.Errorf("listen with a full queue: %v", err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		e.t.Errorf("listen with a full queue: %v", err)
	}
	for range 4 { // one fits
		_ = syscall.Connect(socket(), sa)
	}
}
