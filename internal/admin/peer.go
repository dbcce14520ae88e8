package admin

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"strconv"

	"github.com/mtls-proxy/mtls-proxy/internal/caller"
)

// peerKey is what a request's context holds its connection under.
type peerKey struct{}

// keepPeer lets peerOf look at the connection of a request.
func keepPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, c)
}

// peerOf says who is at the other end of a Unix socket, as the kernel noted it
// when they connected: "ops (uid 1000, pid 4711)". It is "" for everybody else.
func peerOf(ctx context.Context) string {
	c, ok := ctx.Value(peerKey{}).(*net.UnixConn)
	if !ok {
		return ""
	}
	uid, pid, ok := credentials(c)
	if !ok {
		return ""
	}
	who := fmt.Sprintf("uid %d, pid %d", uid, pid)
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		who = u.Username + " (" + who + ")"
	}
	return who
}

// connOf returns the connection of a request; nil outside of one.
func connOf(ctx context.Context) net.Conn {
	c, _ := ctx.Value(peerKey{}).(net.Conn)
	return c
}

// sourceOf tells apart where passwords come from. On the control socket there is one source.
func sourceOf(ctx context.Context) string {
	if c := connOf(ctx); c != nil {
		return caller.Source(c.RemoteAddr(), c.LocalAddr())
	}
	return ""
}
