package metrics

import "github.com/prometheus/client_golang/prometheus"

// Refusal is why a connection of a caller was not served.
type Refusal uint8

const (
	RefusedByLimit  Refusal = iota // limits.max_connections, and no idle connection to close for it
	RefusedByAccept                // the kernel could not give it to us, mostly for want of descriptors
	refusals
)

func (r Refusal) String() string {
	if r == RefusedByLimit {
		return "connection_limit"
	}
	return "accept_error"
}

// listenerVecs are the collectors with only a listener label.
type listenerVecs struct {
	active   *prometheus.GaugeVec
	accepted *prometheus.CounterVec
	refused  *prometheus.CounterVec
	unknown  *prometheus.CounterVec
}

func newListenerVecs() listenerVecs {
	return listenerVecs{
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mtls_proxy_active_connections",
			Help: "Connections of callers that are open.",
		}, []string{"listener"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_proxy_connections_total",
			Help: "Connections of callers that were accepted.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_proxy_connections_refused_total",
			Help: "Connections of callers that were not served, by reason.",
		}, []string{"listener", "reason"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_proxy_unknown_callers_total",
			Help: "Connections of callers whose user or unit a rate limit asked for in vain.",
		}, []string{"listener", "fact"}),
	}
}

func (v *listenerVecs) collectors() []prometheus.Collector {
	return []prometheus.Collector{v.active, v.accepted, v.refused, v.unknown}
}

func (v *listenerVecs) remove(name string) {
	is := prometheus.Labels{"listener": name}
	v.active.DeletePartialMatch(is)
	v.accepted.DeletePartialMatch(is)
	v.refused.DeletePartialMatch(is)
	v.unknown.DeletePartialMatch(is)
}

// Listener counts the connections of one listener. Its methods neither allocate nor lock.
type Listener struct {
	name     string
	active   prometheus.Gauge
	accepted prometheus.Counter
	refused  [refusals]prometheus.Counter
	unknown  struct{ user, unit prometheus.Counter }
}

// Listener returns the counters of the listener of that name, the same ones for as long as it stays configured.
func (m *Metrics) Listener(name string) *Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.listeners[name]; l != nil {
		return l
	}
	l := &Listener{name: name, active: m.listener.active.WithLabelValues(name), accepted: m.listener.accepted.WithLabelValues(name)}
	for r := range refusals {
		l.refused[r] = m.listener.refused.WithLabelValues(name, r.String())
	}
	l.unknown.user = m.listener.unknown.WithLabelValues(name, "user")
	l.unknown.unit = m.listener.unknown.WithLabelValues(name, "unit")
	m.listeners[name] = l
	return l
}

// Accepted counts a connection that is now open; Closed follows once.
func (l *Listener) Accepted() {
	l.accepted.Inc()
	l.active.Inc()
}

// Closed counts the end of a connection that Accepted counted.
func (l *Listener) Closed() { l.active.Dec() }

// Refused counts a connection that is not served.
func (l *Listener) Refused(why Refusal) { l.refused[min(why, refusals-1)].Inc() }

// Unknown counts a connection of a caller whose user, unit or both were asked for and are not known.
func (l *Listener) Unknown(user, unit bool) {
	if user {
		l.unknown.user.Inc()
	}
	if unit {
		l.unknown.unit.Inc()
	}
}
