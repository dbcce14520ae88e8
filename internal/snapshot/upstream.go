package snapshot

import (
	"net/netip"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// servers are those of the url or urls, or what all that DNS names for srv have in common.
func servers(c *config.Upstream) (list []upstream.Server) {
	host := func(field string) string {
		if c.Host == config.HostUpstream {
			return field
		}
		return "" // the caller's, or the route's
	}
	if c.SRV != "" {
		return []upstream.Server{{ServerName: c.ServerName, Host: host(c.HostField())}}
	}
	for _, e := range c.Endpoints() {
		list = append(list, upstream.Server{
			Address: e.Address, ServerName: e.ServerName, Host: host(e.Host), Weight: e.Weight, Backup: e.Backup,
		})
	}
	return list
}

// bind is where connections leave from; the zero Addr: anywhere.
func bind(c *config.Upstream) netip.Addr {
	from, _ := netip.ParseAddr(c.Bind) // checked; none is ""
	return from
}

// literalHost is the Host field that does not depend on the endpoint, "" when it does or when it is the caller's.
func literalHost(c *config.Upstream) string {
	if c.Host == config.HostUpstream || c.Host == config.HostPreserve {
		return ""
	}
	return c.Host
}

func balanceOf(c *config.Upstream) upstream.Balance {
	switch c.Balance {
	case config.BalanceRoundRobin:
		return upstream.RoundRobin
	case config.BalanceFirst:
		return upstream.First
	case config.BalanceLeastRequests:
	}
	return upstream.LeastRequests
}

func conditions(on []string) (c upstream.Condition) {
	for _, reason := range on {
		switch reason {
		case config.RetryConnect:
			c |= upstream.OnConnect
		case config.RetryUnsent:
			c |= upstream.OnUnsent
		case config.RetryReset:
			c |= upstream.OnReset
		case config.RetryBadGateway:
			c |= upstream.On502
		case config.RetryServiceUnavailable:
			c |= upstream.On503
		case config.RetryGatewayTimeout:
			c |= upstream.On504
		case config.RetryTimeout:
			c |= upstream.OnTimeout
		}
	}
	return c
}

// check is the zero Check where there is no path, so that what stands beside it makes no difference.
func check(c *config.Upstream) upstream.Check {
	h := &c.HealthCheck
	if h.Path == "" {
		return upstream.Check{}
	}
	return upstream.Check{
		Path: h.Path, Host: literalHost(c), Interval: h.Interval.Duration, Timeout: h.Timeout.Duration, Expect: h.Expect,
		UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter,
	}
}
