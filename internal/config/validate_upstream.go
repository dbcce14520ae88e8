package config

import (
	"net/url"
	"slices"
	"strings"
)

func (v *validation) upstreams() {
	if len(v.cfg.Upstream) == 0 && v.understood("upstream") {
		v.problem(v.top, []string{"upstream"}, "there is none, so there is nothing to forward to",
			`the smallest file is [identity.default] with certificate and key, [trust.default] with ca, and [upstream.default] with url = "https://HOST"`)
		return
	}
	for _, name := range v.names("upstream") {
		v.upstream(v.cfg.Upstream[name], "upstream", name)
	}
}

func (v *validation) upstream(u *Upstream, table ...string) {
	key := func(step ...string) []string { return append(table[:2:2], step...) }
	v.where(u, key)
	v.backups(u, key)
	v.weights(u, key)
	v.bind(u, key)
	for i, name := range u.PeerNames {
		if !strings.Contains(name, "://") {
			u.PeerNames[i] = strings.ToLower(name)
		}
	}
	if u.Identity == "" {
		u.Identity = "default"
	}
	if u.Trust == "" {
		u.Trust = "default"
	}
	if u.Host == "" {
		u.Host = HostUpstream
	}
	v.refers(key("identity"), "identity", u.Identity)
	v.refers(key("trust"), "trust", u.Trust)
	if u.VerifyPeer == VerifyPeerNames && len(u.PeerNames) == 0 && v.fine(key("peer_names")...) && v.understood(table...) {
		v.wrong(key("verify_peer"), `"peer_names" needs at least one name`, `set peer_names = ["api.example.net"]`)
	}
	if u.VerifyPeer == VerifyPeerPins && len(u.PeerPins) == 0 && v.fine(key("peer_pins")...) && v.understood(table...) {
		v.wrong(key("verify_peer"), `"peer_pins" needs at least one pin`, `set peer_pins = ["sha256//…"]`)
	}
	if u.ProxyPasswordFile != "" && v.fine(key("proxy")...) && v.understood(table...) {
		switch {
		case u.Proxy == nil:
			v.wrong(key("proxy_password_file"), "belongs to a proxy, and there is none", `write proxy = "http://USER@HOST:PORT", or remove it`)
		case u.Proxy.User == nil:
			v.wrong(key("proxy_password_file"), "needs the name of a user in proxy", `write proxy = "http://USER@`+u.Proxy.Host+`"`)
		}
	}
	v.timeouts(u, key)
	v.health(&u.HealthCheck, func(step string) []string { return key("health_check", step) })
}

// where checks that the upstream is somewhere, in one way, and that its servers
// have names.
func (v *validation) where(u *Upstream, key func(...string) []string) {
	var given []string
	note := func(name string, has bool) {
		if v.set(key(name)...) && (has || !v.fine(key(name)...)) {
			given = append(given, name)
		}
	}
	note("url", u.URL != nil)
	note("urls", len(u.URLs) > 0)
	note("srv", u.SRV != "")
	if len(given) == 0 {
		v.needs("", `write url = "https://HOST:PORT"`, key("url")...)
	}
	for i := 1; i < len(given); i++ {
		v.wrong(key(given[i]), "stands beside "+given[0]+" ("+v.at(key(given[0])...).String()+"), and an upstream has one of url, urls and srv", "keep one of them")
	}
	u.ServerName = strings.ToLower(u.ServerName)
	u.SRV = strings.ToLower(strings.TrimSuffix(u.SRV, "."))
	if u.ServerName != "" {
		return
	}
	if u.SRV != "" && len(given) == 1 && v.fine(key("server_name")...) && v.understood(key()...) {
		v.problem(v.at(key("srv")...), key("server_name"), "is missing, and srv names no server to verify", `write server_name = "api.example.net"`)
	}
	hosts := u.places()
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, func(at *url.URL) bool { return hostOf(at) != hostOf(hosts[0]) }) {
		u.ServerName = hostOf(hosts[0])
	}
}

// timeouts warns of those that others leave nothing to.
func (v *validation) timeouts(u *Upstream, key func(...string) []string) {
	whole := u.Timeout.Request
	end := " is never reached: timeout.request ends the exchange after " + whole.String()
	if path := key("timeout", "response_header"); v.set(path...) && u.Timeout.ResponseHeader.Duration > whole.Duration {
		v.warn(path, u.Timeout.ResponseHeader.String()+end, "raise timeout.request too")
	}
	if path := key("retry", "try_timeout"); v.set(path...) && u.Retry.TryTimeout.Duration > whole.Duration {
		v.warn(path, u.Retry.TryTimeout.String()+end, "raise timeout.request too")
	}
	if path := key("retry", "on"); slices.Contains(u.Retry.On, RetryTimeout) && u.Retry.TryTimeout.Duration == 0 && u.Timeout.ResponseHeader.Duration >= whole.Duration {
		v.warn(path, `"timeout" has no effect: one try may take as long as all of them, `+whole.String(), `set try_timeout beside it, as in try_timeout = "5s"`)
	}
}

func (v *validation) health(h *HealthCheck, key func(string) []string) {
	if !v.fine(key("path")...) {
		return
	}
	for _, step := range []string{"interval", "timeout", "expect", "unhealthy_after", "healthy_after"} {
		if h.Path == "" && v.set(key(step)...) {
			v.warn(key(step), "has no effect: there are no checks without path", `write path = "/healthz"`)
		}
	}
	if h.Path == "" {
		return
	}
	if len(h.Expect) == 0 && v.fine(key("expect")...) {
		v.wrong(key("expect"), "is empty, so nothing would be healthy", "write expect = [200, 204]")
	}
	if h.Timeout.Duration > h.Interval.Duration && v.known(key("timeout")...) && v.known(key("interval")...) {
		at := key("timeout")
		if !v.set(at...) {
			at = key("interval")
		}
		v.wrong(at, "a timeout of "+h.Timeout.String()+" is longer than the interval of "+h.Interval.String(), `write timeout = "`+h.Interval.String()+`", or raise interval`)
	}
}
