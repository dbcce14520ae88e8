package snapshot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admission"
	"github.com/mtls-proxy/mtls-proxy/internal/caller"
	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/connect"
	"github.com/mtls-proxy/mtls-proxy/internal/files"
	"github.com/mtls-proxy/mtls-proxy/internal/http1"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/route"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// Build loads what cfg names and returns the next generation. It opens no connection. Upstreams that differ in nothing
// from those of prev are taken over with their pools; prev may be nil. Build changes nothing that prev uses, and on
// error has left nothing behind but series of m, which the next Publish removes.
func Build(ctx context.Context, cfg *config.Config, prev *Snapshot, m *metrics.Metrics) (*Snapshot, error) {
	b := builder{cfg: cfg, prev: prev, m: m, next: &Snapshot{
		Generation: 1,
		Drain:      cfg.Reload.DrainTimeout.Duration,
		listeners:  make(map[string]*Listener),
		settings: settings{
			connections: cfg.Limits.MaxConnections,
			requests:    cfg.Limits.MaxConcurrentRequests,
		},
	}}
	b.before = indexOf(prev)
	if prev != nil {
		b.next.Generation = prev.Generation + 1
		b.next.shared = prev.shared
	} else {
		set := b.next.settings
		b.next.shared = &shared{
			connections: admission.NewGate(set.connections),
			requests:    admission.NewGate(set.requests),
			buffers:     conn.NewBuffers(),
		}
	}
	for _, step := range []func() error{b.policy, b.credentials, b.upstreams, b.routes, func() error { return b.rates(ctx) }} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(); err != nil {
			return nil, err
		}
	}
	b.limits()
	b.listeners()
	b.publication()
	return b.next, nil
}

// builder holds the next generation while it is made.
type builder struct {
	cfg  *config.Config
	prev *Snapshot
	m    *metrics.Metrics
	next *Snapshot

	before index // of prev

	identities map[string]*identity.Identity
	bundles    map[string]*trust.Bundle
	proxies    map[string]*connect.Proxy // by upstream; nil where there is none
	password   string                    // of the shared rate limit's store
	byName     map[string]*upstream.Upstream
	speaks     map[string]http1.LocationRewrite // by upstream, without prefixes: what its routes have in common
	rules      []route.Rule
	rate       *Rate // of Limits
	callers    caller.Facts
}

// index finds what a snapshot has by its name.
type index struct {
	identities map[string]*identity.Identity
	bundles    map[string]*trust.Bundle
	upstreams  map[string]*upstream.Upstream
	budgets    map[budgetID]*budget
}

// indexOf takes a nil Snapshot for an empty one.
func indexOf(s *Snapshot) index {
	x := index{
		identities: make(map[string]*identity.Identity), bundles: make(map[string]*trust.Bundle),
		upstreams: make(map[string]*upstream.Upstream), budgets: make(map[budgetID]*budget),
	}
	if s == nil {
		return x
	}
	for _, id := range s.Identities {
		x.identities[id.Name] = id
	}
	for _, bundle := range s.Bundles {
		x.bundles[bundle.Name] = bundle
	}
	for _, u := range s.upstreams {
		x.upstreams[u.Name()] = u
	}
	for _, budget := range s.budgets {
		x.budgets[budget.id] = budget
	}
	return x
}

func (b *builder) policy() error {
	access, err := logging.ParseAccess(b.cfg.Log.Access)
	if err != nil {
		return err
	}
	b.next.Policy = logging.Policy{Access: access, Path: b.cfg.Log.Path, Slow: b.cfg.Log.Slow.Duration}
	b.next.Defaults = securityHeaders(&b.cfg.SecurityHeaders)
	return nil
}

func securityHeaders(h *config.SecurityHeaders) (list []http1.Default) {
	if !h.Enabled {
		return nil
	}
	for _, d := range []http1.Default{
		{Name: "Strict-Transport-Security", Value: h.StrictTransportSecurity},
		{Name: "X-Content-Type-Options", Value: h.ContentTypeOptions},
		{Name: "X-Frame-Options", Value: h.FrameOptions},
		{Name: "Referrer-Policy", Value: h.ReferrerPolicy},
		{Name: "Content-Security-Policy", Value: h.ContentSecurityPolicy},
	} {
		if d.Value != "" {
			list = append(list, d)
		}
	}
	return list
}

// credentials loads identities, trust bundles and passwords, and takes over identities and bundles that did not change, so
// that equal means the same pointer. It reports everything that is wrong with any of them.
func (b *builder) credentials() error {
	var errs []error
	reader := new(files.Reader) // one for all, so that a folder which several lie in is reported once
	before := b.before
	b.identities = make(map[string]*identity.Identity)
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Identity)) {
		c := b.cfg.Identity[name]
		id, err := identity.Load(identity.Source{Name: name, Certificate: c.Certificate, Key: c.Key, Files: reader})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if old := before.identities[name]; old != nil && old.Fingerprint == id.Fingerprint {
			id = old
		}
		b.identities[name] = id
		b.next.Identities = append(b.next.Identities, id)
	}
	b.bundles = make(map[string]*trust.Bundle)
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Trust)) {
		c := b.cfg.Trust[name]
		bundle, err := trust.Load(trust.Source{Name: name, CA: c.CA, SystemRoots: c.SystemRoots, Files: reader})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if old := before.bundles[name]; old != nil && old.Fingerprint == bundle.Fingerprint {
			bundle = old
		}
		b.bundles[name] = bundle
		b.next.Bundles = append(b.next.Bundles, bundle)
	}
	errs = append(errs, b.passwords()...)
	return errors.Join(errs...)
}

// Inspect loads the identities, trust bundles and passwords that cfg names, and reports everything that is wrong with them.
// cfg need not be sound: what it names in part only is left out.
func Inspect(cfg *config.Config) ([]*identity.Identity, []*trust.Bundle, error) {
	whole := *cfg
	whole.Identity, whole.Trust = maps.Clone(cfg.Identity), maps.Clone(cfg.Trust)
	maps.DeleteFunc(whole.Identity, func(_ string, c *config.Identity) bool { return c.Certificate == "" || c.Key == "" })
	maps.DeleteFunc(whole.Trust, func(_ string, c *config.Trust) bool { return len(c.CA) == 0 && !c.SystemRoots })
	b := builder{cfg: &whole, before: indexOf(nil), next: &Snapshot{}}
	err := b.credentials()
	return b.next.Identities, b.next.Bundles, err
}

func (b *builder) passwords() (errs []error) {
	b.proxies = make(map[string]*connect.Proxy)
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Upstream)) {
		at := b.cfg.Upstream[name].Proxy
		if at == nil {
			continue
		}
		password, err := b.cfg.ProxyPassword(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p, err := connect.New(at.String(), password)
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream.%s.proxy: %w", name, err))
			continue
		}
		b.proxies[name] = p
	}
	var err error
	if b.password, err = b.cfg.SharedPassword(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func (b *builder) upstreams() error {
	b.byName = make(map[string]*upstream.Upstream)
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Upstream)) {
		o := b.options(name, b.cfg.Upstream[name])
		u := b.takeOver(&o)
		if u == nil {
			u = upstream.New(o)
			b.replace(u)
		}
		b.byName[name] = u
		b.next.upstreams = append(b.next.upstreams, u)
	}
	return nil
}

func (b *builder) options(name string, c *config.Upstream) upstream.Options {
	version := uint16(tls.VersionTLS12)
	if c.MinTLSVersion == config.TLS13 {
		version = tls.VersionTLS13
	}
	peer := trust.Peer{Names: c.PeerNames} // the servers' names are with them
	switch c.VerifyPeer {
	case config.VerifyPeerNames:
		peer.Mode = trust.VerifyPeerNames
	case config.VerifyPeerPins:
		peer.Mode = trust.VerifyPeerPins
	case config.VerifyServerName:
		peer.Mode = trust.VerifyServerName
	}
	for _, pin := range c.PeerPins {
		peer.Pins = append(peer.Pins, pin)
	}
	return upstream.Options{
		Name: name, URL: c.Target(), Servers: servers(c), SRV: c.SRV, Balance: balanceOf(c), Bind: bind(c), Proxy: b.proxies[name],
		Identity: b.identities[c.Identity], Bundle: b.bundles[c.Trust], Peer: peer, MinVersion: version,
		Pool: upstream.Pool{
			MaxIdle: c.Pool.MaxIdle, MaxActive: c.Pool.MaxActive,
			IdleTimeout: c.Pool.IdleTimeout.Duration, MaxAge: c.Pool.MaxAge.Duration,
		},
		Timeout: upstream.Timeout{
			Connect: c.Timeout.Connect.Duration, TLSHandshake: c.Timeout.TLSHandshake.Duration,
			ResponseHeader: c.Timeout.ResponseHeader.Duration, Idle: c.Timeout.Idle.Duration,
			Request: c.Timeout.Request.Duration, TunnelIdle: c.Timeout.TunnelIdle.Duration,
		},
		Retry: upstream.Retry{
			Attempts: c.Retry.Attempts, TryTimeout: c.Retry.TryTimeout.Duration, On: conditions(c.Retry.On),
			Budget: c.Retry.Budget, MaxBody: c.Retry.MaxBody.Bytes, Backoff: c.Retry.Backoff.Duration,
		},
		Breaker: upstream.Breaker{
			FailureRatio: c.CircuitBreaker.FailureRatio, MinRequests: c.CircuitBreaker.MinRequests,
			Window: c.CircuitBreaker.Window.Duration, OpenFor: c.CircuitBreaker.OpenFor.Duration, Probes: c.CircuitBreaker.Probes,
		},
		Check: check(c), Metrics: b.m.Upstream(name), Buffers: b.next.shared.buffers,
	}
}

func (b *builder) takeOver(o *upstream.Options) *upstream.Upstream {
	if u := b.before.upstreams[o.Name]; u != nil && u.Same(o) {
		return u
	}
	return nil
}

// replace has u go on where the upstream of that name leaves off.
func (b *builder) replace(u *upstream.Upstream) {
	if old := b.before.upstreams[u.Name()]; old != nil {
		u.Replace(old)
	}
}

// via is our element for a message of HTTP/1.1.
const via = "1.1 mtls-proxy"

func (b *builder) routes() error {
	for _, r := range b.cfg.Route {
		b.rules = append(b.rules, route.Rule{Listener: r.Listener, Host: r.Host, PathPrefix: r.PathPrefix, Methods: r.Methods,
			StripPrefix: r.StripPrefix, AddPrefix: r.AddPrefix})
	}
	table, err := route.Compile(b.rules)
	if err != nil {
		return err
	}
	b.next.Table = table
	b.speaks = make(map[string]http1.LocationRewrite)
	for i, name := range route.Names(b.rules) {
		r, err := b.route(name, &b.cfg.Route[i])
		if err != nil {
			return fmt.Errorf("route[%d]: %w", i+1, err)
		}
		b.next.Routes = append(b.next.Routes, r)
	}
	return nil
}

func (b *builder) route(name string, r *config.Route) (*Route, error) {
	u := b.cfg.Upstream[r.Upstream]
	request, err := edits(r.RequestHeaders)
	if err != nil {
		return nil, fmt.Errorf("request_headers: %w", err)
	}
	response, err := edits(r.ResponseHeaders)
	if err != nil {
		return nil, fmt.Errorf("response_headers: %w", err)
	}
	next := &Route{
		Name:     name,
		Upstream: b.byName[r.Upstream],
		MaxBody:  r.MaxRequestBody.Bytes,
		OwnHost:  u.Host == config.HostPreserve,
		Request:  http1.RequestRewrite{Host: literalHost(u), StripPrefix: r.StripPrefix, AddPrefix: r.AddPrefix, Edits: request},
		Response: http1.ResponseRewrite{Defaults: b.next.Defaults, Edits: response},
	}
	if u.Via {
		next.Request.Via, next.Response.Via = via, via
	}
	switch u.Forwarded {
	case config.ForwardedAdd:
		next.Request.Forwarded = http1.ForwardedAdd
	case config.ForwardedPass:
		next.Request.Forwarded = http1.ForwardedPass
	case config.ForwardedStrip:
		next.Request.Forwarded = http1.ForwardedStrip
	}
	if r.RewriteLocation {
		names, known := b.speaks[r.Upstream]
		if !known {
			names = speaks(u)
			b.speaks[r.Upstream] = names
		}
		names.StripPrefix, names.AddPrefix = r.StripPrefix, r.AddPrefix
		names.OwnHost = u.Host == config.HostPreserve
		next.Response.Location = &names
	}
	return next, nil
}

// edits returns nil where there are none.
func edits(e config.HeaderEdits) (*http1.Edits, error) {
	if len(e.Set)+len(e.Add)+len(e.Remove) == 0 {
		return nil, nil
	}
	return http1.CompileEdits(e.Set, e.Add, e.Remove)
}

// speaks knows the upstream by every name under which it may speak of itself: that of the url, of the certificate and
// of the Host that it is sent.
func speaks(u *config.Upstream) (l http1.LocationRewrite) {
	add := func(list *[]string, s string) {
		if !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	know := func(host, port string) {
		host = strings.ToLower(host)
		add(&l.Domains, host)
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if port == "" || port == "443" {
			add(&l.Origins, "https://"+host)
			port = "443"
		}
		add(&l.Origins, "https://"+host+":"+port)
		// A server behind a TLS terminator may name itself with http.
		for _, origin := range []string{"http://" + host, "http://" + host + ":80", "http://" + host + ":" + port} {
			add(&l.Origins, origin)
		}
	}
	field := func(host string) {
		if host != "" {
			is := url.URL{Host: host}
			know(is.Hostname(), is.Port())
		}
	}
	for _, e := range u.Endpoints() {
		know(e.URL.Hostname(), e.URL.Port())
		know(e.ServerName, e.URL.Port())
		field(e.Host)
	}
	if u.SRV != "" { // the ports are for DNS to tell
		for _, name := range u.ServerNames() {
			know(name, "")
		}
		field(u.HostField())
	}
	return l
}

func (b *builder) limits() {
	c := &b.cfg.Limits
	b.next.Limits = Limits{
		HTTP:          http1.Limits{MaxRequestLine: int(c.MaxRequestLine.Bytes), MaxHead: int(c.MaxHeaderBytes.Bytes)},
		HeaderTimeout: c.HeaderTimeout.Duration,
		IdleTimeout:   c.IdleTimeout.Duration,
		QueueTimeout:  c.QueueTimeout.Duration,
		Connections:   b.next.shared.connections,
		Requests:      b.next.shared.requests,
		Rate:          b.rate,
		Callers:       b.callers,
	}
	b.next.Limits.UnixHTTP = b.next.Limits.HTTP
	b.next.Limits.UnixHTTP.AnyHost = true
}

func (b *builder) listeners() {
	upstreams := b.hostNames()
	for name, c := range b.cfg.Listener {
		l := &Listener{
			Name:      name,
			Metrics:   b.m.Listener(name),
			Unrouted:  b.m.Exchange(name, "", ""),
			Exchanges: make([]*metrics.Exchange, len(b.rules)),
			Guarded:   c.BrowserRequests == config.BrowserDeny,
			hosts:     make(map[string]bool),
			upstreams: upstreams,
			origins:   make(map[string]bool),
			anyHost:   slices.Contains(c.AllowedHosts, "*"),

			shareLimit: c.MaxConnectionsPerCaller,
		}
		if b.prev != nil && b.prev.listeners[name] != nil {
			l.Shares = b.prev.listeners[name].Shares
		} else {
			l.Shares = admission.NewShares(c.MaxConnectionsPerCaller)
		}
		for _, host := range c.AllowedHosts {
			l.hosts[strings.ToLower(host)] = true
		}
		for _, origin := range c.AllowedOrigins {
			l.origins[strings.ToLower(origin)] = true
		}
		for i, r := range b.next.Routes {
			if of := b.rules[i].Listener; of == "" || of == name {
				l.Exchanges[i] = b.m.Exchange(name, r.Name, r.Upstream.Name())
			}
		}
		b.next.listeners[name] = l
	}
}

// hostNames are the names of upstreams.
func (b *builder) hostNames() map[string]bool {
	names := make(map[string]bool)
	for _, u := range b.cfg.Upstream {
		for _, host := range u.ServerNames() {
			host = strings.ToLower(host)
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			names[host] = true
		}
	}
	return names
}

func (b *builder) publication() {
	p := &metrics.Publication{Generation: b.next.Generation}
	for _, name := range slices.Sorted(maps.Keys(b.next.listeners)) {
		l := b.next.listeners[name]
		p.Listeners = append(p.Listeners, l.Metrics)
		p.Exchanges = append(p.Exchanges, l.Unrouted)
		for _, e := range l.Exchanges {
			if e != nil {
				p.Exchanges = append(p.Exchanges, e)
			}
		}
	}
	for _, u := range b.next.upstreams {
		p.Upstreams = append(p.Upstreams, metrics.Pool{Upstream: u.Metrics(), Stats: u.Stats, Health: u.Health})
	}
	limits := b.next.Limits
	gate := func(name string, g *admission.Gate) {
		p.Limits = append(p.Limits, metrics.Limit{Name: name, Stats: func() (used, limit float64) {
			return float64(g.InUse()), float64(g.Limit())
		}})
	}
	gate("connections", limits.Connections)
	gate("concurrent_requests", limits.Requests)
	p.Limits = append(p.Limits,
		metrics.Limit{Name: "queued_requests", Stats: func() (used, limit float64) { return float64(limits.Requests.Queued()), 0 }},
		metrics.Limit{Name: "rate_limit", Stats: limits.Rate.Level},
		metrics.Limit{Name: "rate_limit_keys", Stats: limits.Rate.Keys},
	)
	p.RateKeys = append(p.RateKeys, limits.Rate.Key)
	for _, r := range b.next.Routes {
		if r.Rate != nil {
			p.RateKeys = append(p.RateKeys, r.Rate.Key)
		}
	}
	p.Admission = b.next.admissionCounts()
	for _, id := range b.next.Identities {
		p.Certificates = append(p.Certificates, metrics.Certificate{Kind: "identity", Name: id.Name, NotAfter: id.NotAfter})
	}
	for _, bundle := range b.next.Bundles {
		if first := firstExpiry(bundle); !first.IsZero() {
			p.Certificates = append(p.Certificates, metrics.Certificate{Kind: "trust", Name: bundle.Name, NotAfter: first})
		}
	}
	b.next.publication = p
}

// firstExpiry is when the first of the bundle's own certificates expires; the zero time when it has none.
func firstExpiry(b *trust.Bundle) (first time.Time) {
	for _, c := range b.Certificates {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}
