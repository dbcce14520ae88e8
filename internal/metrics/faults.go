package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// kind tells in which narrower figures a fault counts as well.
type kind struct {
	tls        bool
	connection bool
	timeout    string // the phase that took too long; "" when the fault is not a timeout
}

// kinds has the faults that count in more than the totals.
func kinds() map[string]kind {
	var (
		connection = kind{connection: true}
		handshake  = kind{connection: true, tls: true}
	)
	return map[string]kind{
		"dns_error":            connection,
		"connection_refused":   connection,
		"connection_reset":     connection,
		"network_unreachable":  connection,
		"response_reset":       connection,
		"response_truncated":   connection,
		"unsolicited_response": connection,

		"tls_alert":                        handshake,
		"tls_protocol_error":               handshake,
		"tls_version_mismatch":             handshake,
		"server_certificate_expired":       handshake,
		"server_certificate_invalid":       handshake,
		"server_certificate_not_yet_valid": handshake,
		"server_certificate_untrusted":     handshake,
		"server_key_too_weak":              handshake,
		"server_name_mismatch":             handshake,
		"server_pin_mismatch":              handshake,
		"trust_bundle_unfit":               handshake,
		"client_ca_unknown":                handshake,
		"client_certificate_expired":       handshake,
		"client_certificate_not_yet_valid": handshake,
		"client_certificate_rejected":      handshake,
		"client_certificate_required":      handshake,

		"dns_timeout":             {connection: true, timeout: "resolve"},
		"connection_timeout":      {connection: true, timeout: "connect"},
		"tls_handshake_timeout":   {connection: true, tls: true, timeout: "tls_handshake"},
		"request_header_timeout":  {timeout: "request_header"},
		"request_body_timeout":    {timeout: "request_body"},
		"response_header_timeout": {timeout: "response_header"},
		"response_body_timeout":   {timeout: "response_body"},
		"request_timeout":         {timeout: "request"},
		"tunnel_idle_timeout":     {timeout: "tunnel_idle"},
	}
}

// faultTable numbers the faults, so that counting one is a look-up and an index.
type faultTable struct {
	faults []Fault
	kinds  []kind         // of each
	index  map[string]int // never written after newFaultTable
	errors *prometheus.CounterVec
	total  []prometheus.Counter
}

func newFaultTable(faults []Fault) *faultTable {
	faults = slices.Clone(faults)
	slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.Token, b.Token) })
	t := &faultTable{
		faults: faults,
		index:  make(map[string]int, len(faults)),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mtls_proxy_errors_total",
			Help: "Faults of every kind, whether or not they ended a request, and who is to blame.",
		}, []string{"fault", "blame"}),
	}
	special := kinds()
	for i, f := range faults {
		t.kinds = append(t.kinds, special[f.Token])
		t.index[f.Token] = i
		t.total = append(t.total, t.errors.WithLabelValues(f.Token, f.Blame))
	}
	return t
}

// concernsNone reports whether the fault can happen to requests that have no upstream: those that upstreams have a part in cannot.
func (t *faultTable) concernsNone(i int) bool {
	return t.faults[i].Blame != "upstream" && !t.kinds[i].tls && !t.kinds[i].connection
}
