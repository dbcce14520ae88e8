//go:build !linux

package conn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

func bindLate(string, string, syscall.RawConn) error { return nil }

// dialRaw is not called.
func (*Dialer) dialRaw(context.Context, time.Duration, netip.AddrPort) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// rawAcceptor is never there.
type rawAcceptor struct{ file *os.File }

func newRawAcceptor(net.Listener, *Closer) (*rawAcceptor, error) { return nil, nil }
func (*rawAcceptor) accept() (net.Conn, error)                   { return nil, errors.ErrUnsupported }
func (*rawAcceptor) acceptNow() (net.Conn, error)                { return nil, errors.ErrUnsupported }
