package upstream

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// network is what is looked up: where connections leave from one address, those of its family.
func (o *Options) network() string {
	switch {
	case !o.Bind.IsValid() || o.Proxy != nil: // the proxy looks names up, and connects
		return "ip"
	case o.Bind.Is4():
		return "ip4"
	default:
		return "ip6"
	}
}

// bindFault names what only happens to connections that are to leave from one address; nil when it is something else.
func (o *Options) bindFault(err error) *fault.Fault {
	if !o.Bind.IsValid() {
		return nil
	}
	detail := ""
	call, _ := errors.AsType[*os.SyscallError](err)
	_, unfit := errors.AsType[*net.AddrError](err)
	switch {
	case unfit:
		detail = "The upstream's bind is of another family, IPv4 or IPv6, than the address that it is to reach; correct one of them."
	case call == nil:
	case call.Syscall == "bind" && errors.Is(call.Err, syscall.EADDRNOTAVAIL):
		detail = "The upstream's bind is not an address of this host; correct it, or give that address to an interface."
	case call.Syscall == "connect" && errors.Is(call.Err, syscall.EINVAL):
		detail = "No connection can leave from the upstream's bind for where the upstream is; loopback reaches nothing but this host."
	}
	if detail == "" {
		return nil
	}
	return fault.New(fault.ConfigurationError, err).WithDetail(detail)
}
