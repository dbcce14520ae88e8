package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/reload"
	"github.com/mtls-proxy/mtls-proxy/internal/route"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// State is where in its life the service is.
type State string

// The states, in the order in which they come.
const (
	Starting State = "starting"
	Serving  State = "serving"
	Draining State = "draining"
)

// Status is what the running service says about itself: the answer of /status,
// which `mtls-proxy status` reads back. Fields are added, never renamed.
type Status struct {
	Version       string    `json:"version"`
	State         State     `json:"state"`
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	UptimeSeconds int64     `json:"uptime_seconds"`
	Config        string    `json:"config,omitempty"` // the file; none when flags said it all
	Generation    uint64    `json:"generation"`
	Connections   int       `json:"connections"` // of callers
	Exchanges     int       `json:"exchanges"`   // in progress

	Listeners  []ListenerStatus `json:"listeners"`
	Routes     []RouteStatus    `json:"routes"`
	Upstreams  []UpstreamStatus `json:"upstreams"`
	Identities []IdentityStatus `json:"identities"`
	Limits     []LimitStatus    `json:"limits"`
	Admin      []string         `json:"admin"` // addresses of the operators' surface
	Refused    RefusedStatus    `json:"admin_refused"`

	QueueRefused uint64       `json:"queue_refused"`              // requests that did not queue, as it would have taken too long
	Store        *StoreStatus `json:"rate_limit_store,omitempty"` // none: no shared rate limit

	LastReload        reload.Outcome `json:"last_reload"` // the start counts as the first
	Warnings          []string       `json:"warnings"`
	LogRecordsDropped uint64         `json:"log_records_dropped"`
}

// ListenerStatus is one listener with the sockets it has now.
type ListenerStatus struct {
	Name        string   `json:"name"`
	Addresses   []string `json:"addresses"`
	Inherited   bool     `json:"inherited"`   // from the service manager
	Connections int      `json:"connections"` // of callers
}

// RouteStatus is one route by the name that metrics and the log give it.
type RouteStatus struct {
	Name     string `json:"name"`
	Upstream string `json:"upstream"`
}

// UpstreamStatus is one upstream with its pool.
type UpstreamStatus struct {
	Name              string `json:"name"`
	URL               string `json:"url"`
	IdleConnections   int    `json:"idle_connections"`
	ActiveConnections int    `json:"active_connections"`

	CircuitBreaker BreakerStatus    `json:"circuit_breaker"`
	Retries        RetryStatus      `json:"retries"`
	Endpoints      []EndpointStatus `json:"endpoints"` // in order of preference
}

// BreakerStatus is how the circuit breaker of an upstream is.
type BreakerStatus struct {
	State    string    `json:"state"` // closed, open, half-open
	Since    time.Time `json:"since"`
	Requests int       `json:"requests"` // that ended within the window; those that are probes where it is half-open
	Failures int       `json:"failures"` // among them
}

// RetryStatus is what is left of the budget of an upstream.
type RetryStatus struct {
	Made   int `json:"made"`   // in the last ten seconds
	Budget int `json:"budget"` // how many there may be
}

// RefusedStatus counts operators' requests that were not answered.
type RefusedStatus struct {
	WrongPassword uint64 `json:"wrong_password"` // or no such user
	Busy          uint64 `json:"busy"`           // too many passwords were being checked
	Browser       uint64 `json:"browser"`        // web pages
}

// IdentityStatus describes a client certificate; the key is not in it.
type IdentityStatus struct {
	Name      string    `json:"name"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"` // negative once it has expired
}

// LimitStatus is how much of a limit is used.
type LimitStatus struct {
	Name  string  `json:"name"`
	Used  float64 `json:"used"`
	Limit float64 `json:"limit"` // 0: off
}

// daysLeft counts whole days from now until t: 0 on the last day, negative
// from the moment of expiry.
func daysLeft(t, now time.Time) int {
	const day = 24 * 60 * 60
	left := t.Unix() - now.Unix() // a time.Duration ends after 292 years
	if t.Nanosecond() < now.Nanosecond() {
		left--
	}
	days := left / day
	if left%day < 0 {
		days--
	}
	return int(days)
}

// Status is what /status answers now.
func (s *service) Status() Status {
	now := time.Now()
	stats := s.server.Stats()
	st := Status{ // lists are never null for who reads the JSON
		Identities: []IdentityStatus{}, Admin: []string{},
		Version:           s.o.Version,
		State:             s.state.Load().(State),
		PID:               os.Getpid(),
		Started:           s.started,
		UptimeSeconds:     int64(now.Sub(s.started).Seconds()),
		Config:            s.o.Config,
		Connections:       stats.ActiveConnections,
		Exchanges:         stats.ActiveExchanges,
		LastReload:        s.last.get(),
		Warnings:          s.warnings(),
		LogRecordsDropped: s.log.Dropped(),
	}
	st.Listeners, _ = s.listeners.status(stats.Listeners)
	addresses, _ := s.admin.status()
	st.Admin = append(st.Admin, addresses...)
	turned := s.admin.server.Stats()
	st.Refused = RefusedStatus{WrongPassword: turned.AuthFailures, Busy: turned.AuthBusy, Browser: turned.Denied}
	cur := s.current.Load()
	if cur == nil {
		return st
	}
	st.Generation = cur.snap.Generation
	for _, id := range cur.snap.Identities {
		st.Identities = append(st.Identities, identityStatus(id))
	}
	st.Upstreams, st.Routes, st.Limits = upstreamsOf(cur.snap), routesOf(cur.cfg), limitsOf(cur.figures)
	st.QueueRefused, st.Store = cur.snap.Limits.Requests.Hopeless(), storeOf(cur.snap)
	return st
}

// current is the generation that serves, with the configuration it was made of
// and the figures that it shows.
type current struct {
	cfg     *config.Config
	snap    *snapshot.Snapshot
	figures *metrics.Publication
}

// warnings are what an operator should look at while this generation serves.
func (s *service) warnings() []string {
	list := []string{}
	for _, err := range s.inherited.Problems {
		list = append(list, err.Error())
	}
	_, listening := s.listeners.status(nil)
	_, operating := s.admin.status()
	list = slices.Concat(list, s.advice(), listening, operating)
	if cur := s.current.Load(); cur != nil {
		list = append(list, expiring(cur.snap.Identities, time.Now())...)
	}
	return list
}

// advice is what the configuration and its files give reason to say, though
// they are served.
func (s *service) advice() (list []string) {
	cur := s.current.Load()
	if cur == nil {
		return nil
	}
	for _, p := range cur.cfg.Warnings {
		list = append(list, p.String())
	}
	for _, id := range cur.snap.Identities {
		for _, w := range id.Warnings {
			list = append(list, fmt.Sprintf("identity %q: %s", id.Name, w))
		}
	}
	for _, b := range cur.snap.Bundles {
		for _, w := range b.Warnings {
			list = append(list, fmt.Sprintf("trust %q: %s", b.Name, w))
		}
	}
	return list
}

// statusLine is the same for `systemctl status`, in one line.
func (s *service) statusLine() string {
	cur := s.current.Load()
	if cur == nil {
		return "starting"
	}
	var b strings.Builder
	stats := s.server.Stats()
	fmt.Fprintf(&b, "%s generation %d: %s, %s in progress", s.state.Load(), cur.snap.Generation,
		count(len(cur.cfg.Upstream), "upstream"), count(stats.ActiveExchanges, "request"))
	if id := firstToExpire(cur.snap.Identities); id != nil {
		switch days := daysLeft(id.NotAfter, time.Now()); {
		case days < 0:
			fmt.Fprintf(&b, ", certificate %q HAS EXPIRED", id.Name)
		case days == 0:
			fmt.Fprintf(&b, ", certificate %q expires today", id.Name)
		default:
			fmt.Fprintf(&b, ", certificate %q expires in %s", id.Name, count(days, "day"))
		}
	}
	if last := s.last.get(); !last.OK() {
		fmt.Fprintf(&b, "; reload refused: %s", firstLine(errors.New(last.Error)))
	} else if _, listening := s.listeners.status(nil); len(listening) > 0 {
		fmt.Fprintf(&b, "; %s", listening[0])
	}
	return b.String()
}

// tellStatus keeps the service manager's line, which is told now, up to date
// until ctx ends, and once a day records the certificates that are about to
// expire.
func (s *service) tellStatus(ctx context.Context, told string) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		if line := s.statusLine(); line != told {
			told = line
			s.report(s.notify.Status(line))
		}
		s.recordExpiry(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// recordedExpiry is when the certificates that are about to expire were last recorded.
type recordedExpiry struct {
	mu sync.Mutex
	at map[certificate]time.Time // of those that serve
}

type certificate struct{ identity, serial string }

// recordExpiry records each certificate that is about to expire: when it comes into service, and then once a day.
func (s *service) recordExpiry(now time.Time) {
	s.expiry.mu.Lock()
	defer s.expiry.mu.Unlock()
	before := s.expiry.at
	s.expiry.at = make(map[certificate]time.Time)
	for _, id := range s.current.Load().snap.Identities {
		days := daysLeft(id.NotAfter, now)
		if days >= expiryWarningDays {
			continue
		}
		c := certificate{id.Name, id.Serial}
		last, recorded := before[c]
		if recorded && now.Sub(last) < 24*time.Hour {
			s.expiry.at[c] = last
			continue
		}
		s.expiry.at[c] = now
		s.logger.Warn("certificate expires", "event", logging.CertificateExpiring, "identity", id.Name, "serial", id.Serial,
			"days", days, "not_after", id.NotAfter.UTC().Format(time.RFC3339))
	}
}

// expiring warns of the certificates that are about to expire.
func expiring(ids []*identity.Identity, now time.Time) (warnings []string) {
	for _, id := range ids {
		date := id.NotAfter.UTC().Format(time.DateOnly)
		switch days := daysLeft(id.NotAfter, now); {
		case days < 0:
			warnings = append(warnings, fmt.Sprintf("identity %q: the certificate expired on %s; renew it", id.Name, date))
		case days == 0:
			warnings = append(warnings, fmt.Sprintf("identity %q: the certificate expires within a day, on %s; renew it", id.Name, date))
		case days < expiryWarningDays:
			warnings = append(warnings, fmt.Sprintf("identity %q: the certificate expires in %s, on %s; renew it", id.Name, count(days, "day"), date))
		}
	}
	return warnings
}

// ready answers /readyz. Upstreams do not count: their absence is no reason to
// take this proxy away from its callers.
func (s *service) ready() (ok bool, reason string) {
	switch s.state.Load() {
	case Serving:
		return true, ""
	case Draining:
		return false, "draining"
	}
	return false, "starting"
}

func identityStatus(id *identity.Identity) IdentityStatus {
	return IdentityStatus{
		Name: id.Name, Subject: id.Subject, Issuer: id.Issuer, Serial: id.Serial,
		NotBefore: id.NotBefore, NotAfter: id.NotAfter, DaysLeft: daysLeft(id.NotAfter, time.Now()),
	}
}

func upstreamsOf(snap *snapshot.Snapshot) []UpstreamStatus {
	now, list := time.Now(), []UpstreamStatus{}
	for _, u := range snap.Upstreams() {
		idle, active := u.Stats()
		list = append(list, UpstreamStatus{
			Name: u.Name(), URL: u.URL(), IdleConnections: idle, ActiveConnections: active,
			CircuitBreaker: breakerOf(u, now), Retries: retriesOf(u, now), Endpoints: endpointsOf(u),
		})
	}
	return list
}

func breakerOf(u *upstream.Upstream, now time.Time) BreakerStatus {
	b := u.Breaker()
	requests, failures := b.Recent(now)
	return BreakerStatus{State: b.State().String(), Since: b.Last().At, Requests: requests, Failures: failures}
}

func retriesOf(u *upstream.Upstream, now time.Time) RetryStatus {
	made, budget := u.Budget().Level(now)
	if u.Retry().Attempts == 0 {
		budget = 0
	}
	return RetryStatus{Made: made, Budget: budget}
}

func routesOf(cfg *config.Config) []RouteStatus {
	list := []RouteStatus{}
	rules := make([]route.Rule, len(cfg.Route))
	for i, r := range cfg.Route {
		rules[i] = route.Rule{Listener: r.Listener, Host: r.Host, PathPrefix: r.PathPrefix, Methods: r.Methods}
	}
	for i, name := range route.Names(rules) {
		list = append(list, RouteStatus{Name: name, Upstream: cfg.Route[i].Upstream})
	}
	return list
}

func limitsOf(figures *metrics.Publication) []LimitStatus {
	list := []LimitStatus{}
	for _, l := range figures.Limits {
		used, limit := l.Stats()
		list = append(list, LimitStatus{Name: l.Name, Used: used, Limit: limit})
	}
	return list
}

func firstToExpire(ids []*identity.Identity) *identity.Identity {
	if len(ids) == 0 {
		return nil
	}
	return slices.MinFunc(ids, func(a, b *identity.Identity) int { return a.NotAfter.Compare(b.NotAfter) })
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
