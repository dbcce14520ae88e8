//go:build !linux

package conn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

func bindLate(string, string, syscall.RawConn) error { return nil }

// dialRaw is not called.
func (*Dialer) dialRaw(context.Context, time.Duration, netip.AddrPort) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
