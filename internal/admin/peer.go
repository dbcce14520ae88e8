package admin

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"strconv"
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
