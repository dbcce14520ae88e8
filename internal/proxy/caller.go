package proxy

import (
	"sync/atomic"

	callers "github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
)

// party is what a session knows of its caller.
type party struct {
	callers.Caller
	asked callers.Facts // whether it is known or not

	text, unit string // for the log; "" before there was a record
}

// parties is how sessions learn it.
type parties struct {
	*callers.Lookup
	blind atomic.Bool // it was recorded that nobody can be looked up
}

func newParties() *parties { return &parties{Lookup: callers.NewLookup()} }

// introduce learns the user of a caller on a Unix socket, which the kernel noted when it connected.
func (x *session) introduce() {
	x.party.asked = callers.User
	if who, err := x.server.callers.Of(x.socket, callers.User); err == nil {
		x.party.Caller, x.share = who, who.User
	}
}

// identify finds out who the caller is, as far as this generation has to know it and it was not asked before: once for a
// connection, and again when a reload wants to know more.
func (x *session) identify() {
	more := x.snap.Limits.Callers &^ x.party.asked
	if more == 0 || x.probe {
		return
	}
	x.party.asked |= more
	who, err := x.server.callers.Of(x.socket, more)
	if err != nil && !x.server.callers.blind.Swap(true) {
		x.server.o.Log.Logger().Warn("callers could not be looked up; they share the limits by user and unit", "event", logging.CallersUnknown, "listener", x.name, "err", err)
	}
	if len(who.User) == 0 {
		who.UID, who.User = x.party.UID, x.party.User
	}
	x.party.Caller, x.party.text = who, ""
	if unknown := more &^ who.Has(); unknown != 0 {
		x.metrics.Unknown(unknown&callers.User != 0, unknown&callers.Unit != 0)
	}
}

// caller is who calls, for the log.
func (x *session) caller() string {
	switch known := x.party.Has()&callers.User != 0; {
	case x.address == "" && known:
		return x.server.callers.Name(x.party.UID)
	case x.address == "":
		return "unix"
	case known:
		return x.socket.RemoteAddr().String() + ", " + x.server.callers.Name(x.party.UID)
	default:
		return x.socket.RemoteAddr().String()
	}
}
