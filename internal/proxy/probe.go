package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

// Probe sends a request through one of the sockets that callers use and waits for its answer. It is known by the address
// that it comes from, so that no limit and no route touches it, and no request of a caller can pass for it.
func (s *Server) Probe(ctx context.Context) (err error) {
	target, err := s.probeTarget()
	if err != nil {
		return err
	}
	var forget func()
	d := net.Dialer{Control: func(network, _ string, c syscall.RawConn) error {
		e := c.Control(func(fd uintptr) { forget, err = s.expectProbe(network, int(fd)) })
		return errors.Join(e, err)
	}}
	c, err := d.DialContext(ctx, target.Network(), target.String())
	if forget != nil {
		defer forget()
	}
	if err != nil {
		return fmt.Errorf("probe of %s: %w", target, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")); err != nil {
		return fmt.Errorf("probe of %s: %w", target, err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "HTTP/1.1 204 ") {
		err = fmt.Errorf("the answer begins with %.40q", line)
	}
	if err != nil {
		return fmt.Errorf("probe of %s: %w", target, err)
	}
	return nil
}

// probeTarget is an address that we serve, as this host reaches it.
func (s *Server) probeTarget() (net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.serving) == 0 {
		return nil, errors.New("probe: nothing is served")
	}
	tcp, ok := s.serving[0].(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return s.serving[0], nil
	}
	to := *tcp
	to.IP = net.IPv4(127, 0, 0, 1)
	if tcp.IP.To4() == nil {
		to.IP = net.IPv6loopback
	}
	return &to, nil
}

// expectProbe gives the socket an address of its own and notes that what comes from there is a probe, until forget is
// called. It must be before connect: the connection may be accepted before that returns.
func (s *Server) expectProbe(network string, fd int) (forget func(), err error) {
	var own syscall.Sockaddr
	switch {
	case strings.HasPrefix(network, "unix"):
		own = &syscall.SockaddrUnix{} // the kernel chooses an abstract name
	case network == "tcp6":
		own = &syscall.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	default:
		own = &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	}
	if err := syscall.Bind(fd, own); err != nil {
		return nil, err
	}
	own, err = syscall.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch own := own.(type) {
	case *syscall.SockaddrUnix:
		s.unix[own.Name] = true
		return func() { s.mu.Lock(); delete(s.unix, own.Name); s.mu.Unlock() }, nil
	case *syscall.SockaddrInet4:
		at := netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port))
		s.probes[at] = true
		return func() { s.mu.Lock(); delete(s.probes, at); s.mu.Unlock() }, nil
	case *syscall.SockaddrInet6:
		at := netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port))
		s.probes[at] = true
		return func() { s.mu.Lock(); delete(s.probes, at); s.mu.Unlock() }, nil
	}
	return nil, fmt.Errorf("no probe from an address of type %T", own)
}

// isProbe reports whether a probe is expected from a. The caller holds mu.
func (s *Server) isProbe(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		at := a.AddrPort()
		return s.probes[netip.AddrPortFrom(at.Addr().Unmap(), at.Port())]
	case *net.UnixAddr:
		return a.Name != "" && s.unix[a.Name]
	}
	return false
}

func (x *session) answerProbe() {
	x.write(http1.AppendAnswer(nil, &http1.Answer{Status: 204, Close: true}))
	x.closing = true
}
