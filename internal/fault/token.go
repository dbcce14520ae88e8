package fault

import (
	"slices"
	"strings"
)

// Token names one way in which an exchange can fail. The same string is the
// journal's MTLS_FAULT, a metric label, a member of the problem body and the
// details of Proxy-Status, so a token never changes its meaning or its name.
type Token string

// Faults of the caller: the request cannot be served as it is.
const (
	AmbiguousPath              Token = "ambiguous_path"
	BadRequest                 Token = "bad_request"
	BrowserRequestDenied       Token = "browser_request_denied"
	CallerGone                 Token = "caller_gone"
	ConnectNotSupported        Token = "connect_not_supported"
	ExpectationFailed          Token = "expectation_failed"
	HeaderTooLarge             Token = "header_too_large"
	HostNotAllowed             Token = "host_not_allowed"
	HTTPVersionNotSupported    Token = "http_version_not_supported"
	MethodNotAllowed           Token = "method_not_allowed"
	NoRoute                    Token = "no_route"
	RateLimited                Token = "rate_limited"
	RequestBodyTimeout         Token = "request_body_timeout"
	RequestHeaderTimeout       Token = "request_header_timeout"
	RequestTooLarge            Token = "request_too_large"
	TLSOnPlainPort             Token = "tls_on_plain_port"
	TransferCodingNotSupported Token = "transfer_coding_not_supported"
	TunnelIdleTimeout          Token = "tunnel_idle_timeout"
	URITooLong                 Token = "uri_too_long"
)

// Faults of the proxy: its limits, its state, its configuration, its identity.
const (
	ClientCertificateExpired     Token = "client_certificate_expired"
	ClientCertificateNotYetValid Token = "client_certificate_not_yet_valid"
	ConcurrencyLimit             Token = "concurrency_limit"
	ConfigurationError           Token = "configuration_error"
	ConnectionLimit              Token = "connection_limit"
	Draining                     Token = "draining"
	InternalError                Token = "internal_error"
	TrustBundleUnfit             Token = "trust_bundle_unfit"
)

// Faults of the upstream, or of the way to it.
const (
	CircuitBreakerOpen           Token = "circuit_breaker_open"
	ClientCAUnknown              Token = "client_ca_unknown"
	ClientCertificateRejected    Token = "client_certificate_rejected"
	ClientCertificateRequired    Token = "client_certificate_required"
	ConnectionRefused            Token = "connection_refused"
	ConnectionReset              Token = "connection_reset"
	ConnectionTimeout            Token = "connection_timeout"
	DNSError                     Token = "dns_error"
	DNSTimeout                   Token = "dns_timeout"
	NetworkUnreachable           Token = "network_unreachable"
	RequestTimeout               Token = "request_timeout"
	ResponseBodyTimeout          Token = "response_body_timeout"
	ResponseHeaderTimeout        Token = "response_header_timeout"
	ResponseHeaderTooLarge       Token = "response_header_too_large"
	ResponseMalformed            Token = "response_malformed"
	ResponseReset                Token = "response_reset"
	ResponseTruncated            Token = "response_truncated"
	ServerCertificateExpired     Token = "server_certificate_expired"
	ServerCertificateInvalid     Token = "server_certificate_invalid"
	ServerCertificateNotYetValid Token = "server_certificate_not_yet_valid"
	ServerCertificateUntrusted   Token = "server_certificate_untrusted"
	ServerKeyTooWeak             Token = "server_key_too_weak"
	ServerNameMismatch           Token = "server_name_mismatch"
	ServerPinMismatch            Token = "server_pin_mismatch"
	TLSAlert                     Token = "tls_alert"
	TLSHandshakeTimeout          Token = "tls_handshake_timeout"
	TLSProtocolError             Token = "tls_protocol_error"
	TLSVersionMismatch           Token = "tls_version_mismatch"
	TunnelResponseMalformed      Token = "tunnel_response_malformed"
	UnsolicitedResponse          Token = "unsolicited_response"
	UpgradeFailed                Token = "upgrade_failed"
)

// Blame says whose move it is.
type Blame uint8

// The three who can be to blame.
const (
	Caller Blame = iota
	Proxy
	Upstream
)

// String returns "caller", "proxy" or "upstream".
func (b Blame) String() string {
	switch b {
	case Caller:
		return "caller"
	case Upstream:
		return "upstream"
	default:
		return "proxy"
	}
}

// entry is a row of the vocabulary.
type entry struct {
	token      Token
	status     int
	blame      Blame
	proxyError string // an error type of RFC 9209, section 2.3
	summary    string
	fix        string
}

// vocabulary holds every token once, sorted by name; find relies on the order.
// docs/faults.md shows the same rows.
var vocabulary = [...]entry{
	{AmbiguousPath, 400, Caller, "http_request_error",
		"Servers exist that read the path as one of another route, or as one outside of the route's prefix.",
		"Send the path in its plain form, without \"..\", \"//\", \";\", \"\\\" or needless escapes, and in the case of the routes; or give that spelling a route of its own."},
	{BadRequest, 400, Caller, "http_request_error",
		"The request breaks the rules of HTTP/1.1, so it was not passed on and the connection was closed.",
		"Correct the program that sends it; the detail names the rule."},
	{BrowserRequestDenied, 403, Caller, "http_request_denied",
		"The request comes from a web page, and a web page must not borrow the client certificate.",
		"Call from a program, and without Origin; an origin that may call belongs into the listener's allowed_origins."},
	{CallerGone, 499, Caller, "http_request_error",
		"The caller closed its connection before the answer was complete.",
		"If callers give up too early, raise their timeout above the upstream's response time."},
	{CircuitBreakerOpen, 503, Upstream, "destination_unavailable",
		"So many requests to the upstream failed that it is left alone for a moment.",
		"Look in the log for what the failures before this one were; the upstream is asked again after Retry-After."},
	{ClientCAUnknown, 502, Upstream, "tls_alert_received",
		"The upstream does not know the authority that issued our client certificate.",
		"Put the intermediate certificates behind the leaf in the identity's certificate file, or have the upstream trust the issuing authority."},
	{ClientCertificateExpired, 502, Proxy, "tls_certificate_error",
		"Our client certificate has expired.",
		"Renew the certificate and its key, then run \"systemctl reload mtls-proxy\"."},
	{ClientCertificateNotYetValid, 502, Proxy, "tls_certificate_error",
		"Our client certificate is not valid yet.",
		"Check the clock of this host, or install the certificate that is valid now and reload."},
	{ClientCertificateRejected, 502, Upstream, "tls_alert_received",
		"The upstream refused our client certificate.",
		"Ask the upstream's operator which certificate is registered there, and compare serial and issuer with the identity's."},
	{ClientCertificateRequired, 502, Upstream, "tls_alert_received",
		"The upstream demands a client certificate and got none.",
		"Give the upstream an identity with certificate and key."},
	{ConcurrencyLimit, 503, Proxy, "connection_limit_reached",
		"Too many requests are in progress, and no place became free within the queue's timeout.",
		"Send fewer requests at once, or raise limits.max_concurrent_requests or limits.queue_timeout."},
	{ConfigurationError, 502, Proxy, "proxy_configuration_error",
		"The proxy's configuration does not allow this exchange to be carried.",
		"Run \"mtls-proxy check\" and read the log record with this request's id."},
	{ConnectNotSupported, 405, Caller, "http_request_error",
		"The request uses CONNECT, which this proxy does not offer.",
		"Use the proxy's address as the base URL instead of configuring it as an HTTP proxy."},
	{ConnectionLimit, 503, Proxy, "connection_limit_reached",
		"The proxy holds as many connections as it may.",
		"Reuse connections, or raise limits.max_connections."},
	{ConnectionRefused, 502, Upstream, "connection_refused",
		"The upstream's host refused the connection.",
		"Check that the upstream is running and that host and port of its url are right."},
	{ConnectionReset, 502, Upstream, "connection_terminated",
		"The connection to the upstream was closed before it could carry the request.",
		"Look into the upstream's log; a firewall, or a server that dislikes our certificate, can do this too."},
	{ConnectionTimeout, 504, Upstream, "connection_timeout",
		"The upstream did not accept a connection in time.",
		"Check the route and the firewalls between this host and the upstream, or raise timeout.connect."},
	{DNSError, 502, Upstream, "dns_error",
		"The upstream's host name could not be resolved.",
		"Check the host in the upstream's url and this host's resolver."},
	{DNSTimeout, 504, Upstream, "dns_timeout",
		"Resolving the upstream's host name took too long.",
		"Check that this host's DNS servers can be reached."},
	{Draining, 503, Proxy, "destination_unavailable",
		"The proxy is stopping and takes no new requests.",
		"Send the request again in a moment."},
	{ExpectationFailed, 417, Caller, "http_request_error",
		"The request's Expect field asks for something other than 100-continue.",
		"Leave the Expect field out, or send \"Expect: 100-continue\"."},
	{HeaderTooLarge, 431, Caller, "http_request_error",
		"The request's header section is larger than allowed.",
		"Send less, often fewer cookies, or raise limits.max_header_bytes."},
	{HostNotAllowed, 421, Caller, "http_request_denied",
		"The request's Host is neither a name of this listener nor of a route.",
		"Call the proxy by one of its names, or add the name to the listener's allowed_hosts."},
	{HTTPVersionNotSupported, 505, Caller, "http_request_error",
		"The request's HTTP version is not spoken here.",
		"Use HTTP/1.1."},
	{InternalError, 500, Proxy, "proxy_internal_error",
		"Something went wrong inside the proxy.",
		"Read the log record with this request's id, and report it if it does not explain itself."},
	{MethodNotAllowed, 405, Caller, "http_request_denied",
		"The route does not take this method.",
		"Use a method that the Allow field names, or add it to the route's methods."},
	{NetworkUnreachable, 502, Upstream, "destination_ip_unroutable",
		"There is no way from this host to the upstream's address.",
		"Check this host's network, its routes and firewall, and the unit's IPAddressAllow=."},
	{NoRoute, 404, Caller, "destination_not_found",
		"No route fits the request's listener, Host and path.",
		"Compare the request with the routes that \"mtls-proxy show-config\" prints."},
	{RateLimited, 429, Caller, "http_request_denied",
		"Requests come faster than the rate limit allows.",
		"Wait as long as Retry-After says, or raise rate_limit.requests_per_second and rate_limit.burst."},
	{RequestBodyTimeout, 408, Caller, "http_request_error",
		"The request's body stopped arriving.",
		"Send the body without long pauses, or raise the upstream's timeout.idle."},
	{RequestHeaderTimeout, 408, Caller, "http_request_error",
		"The request's header section did not arrive in time.",
		"Send the whole head at once, or raise limits.header_timeout."},
	{RequestTimeout, 504, Upstream, "http_response_timeout",
		"The exchange took longer than it may from its admission to the response's head.",
		"Find out what holds the upstream up, or raise timeout.request."},
	{RequestTooLarge, 413, Caller, "http_request_error",
		"The request's body is larger than allowed.",
		"Send less, or raise max_request_body of the route or of limits."},
	{ResponseBodyTimeout, 504, Upstream, "connection_read_timeout",
		"The upstream's response stopped arriving, and the connection was cut.",
		"Find out why the upstream paused, or raise timeout.idle."},
	{ResponseHeaderTimeout, 504, Upstream, "http_response_timeout",
		"The upstream took the request but did not answer in time.",
		"Find out what holds the upstream up, or raise timeout.response_header."},
	{ResponseHeaderTooLarge, 502, Upstream, "http_response_header_section_size",
		"The header section of the upstream's response is larger than allowed.",
		"Raise limits.max_header_bytes, or have the upstream send fewer and shorter fields."},
	{ResponseMalformed, 502, Upstream, "http_protocol_error",
		"The upstream's response breaks the rules of HTTP/1.1.",
		"Check that the url's port speaks HTTP/1.1, and report the broken response to the upstream's operator."},
	{ResponseReset, 502, Upstream, "connection_terminated",
		"The upstream closed the connection while it carried the exchange.",
		"Look into the upstream's log; the request may or may not have been acted on."},
	{ResponseTruncated, 502, Upstream, "http_response_incomplete",
		"The upstream's response ended before it was complete.",
		"Treat what arrived as incomplete, and look into the upstream's log."},
	{ServerCertificateExpired, 502, Upstream, "tls_certificate_error",
		"The upstream's certificate, or one it depends on, has expired.",
		"Check the clock of this host; if it is right, the upstream's operator must renew the certificate."},
	{ServerCertificateInvalid, 502, Upstream, "tls_certificate_error",
		"The upstream's certificate is not fit for a server.",
		"The upstream's operator must install a certificate issued for server authentication; the log says what is wrong with this one."},
	{ServerCertificateNotYetValid, 502, Upstream, "tls_certificate_error",
		"The upstream's certificate, or one it depends on, is not valid yet.",
		"Check the clock of this host; if it is right, the upstream uses its certificate too early."},
	{ServerCertificateUntrusted, 502, Upstream, "tls_certificate_error",
		"The upstream's certificate was not issued by an authority we trust.",
		"Add the issuing authority to the trust bundle's ca, or have the upstream send its intermediate certificates."},
	{ServerKeyTooWeak, 502, Upstream, "tls_certificate_error",
		"The upstream's certificate chain uses an RSA key of less than 2048 bits.",
		"The upstream's operator must replace the certificate with a weak key; the log names it."},
	{ServerNameMismatch, 502, Upstream, "tls_certificate_error",
		"The upstream's certificate is for another name than the one we expect.",
		"Check the url, or set server_name or peer_names to a name that the certificate carries."},
	{ServerPinMismatch, 502, Upstream, "tls_certificate_error",
		"No key in the upstream's certificate chain is one of the pinned keys.",
		"If the upstream changed its key on purpose, add the new pin to peer_pins; if not, do not."},
	{TLSAlert, 502, Upstream, "tls_alert_received",
		"The upstream ended the TLS connection with an alert.",
		"Look for the alert in the upstream's log; the detail says which one it was."},
	{TLSHandshakeTimeout, 504, Upstream, "connection_timeout",
		"The TLS handshake with the upstream took too long.",
		"Check that the url's port speaks TLS, or raise timeout.tls_handshake."},
	{TLSOnPlainPort, 400, Caller, "http_request_error",
		"The caller speaks TLS to a port where plain HTTP is spoken.",
		"Write http:// instead of https:// in the program's base URL; the proxy speaks TLS to the upstream by itself."},
	{TLSProtocolError, 502, Upstream, "tls_protocol_error",
		"The TLS handshake with the upstream failed.",
		"Check that the url's port speaks TLS; the log says what was wrong."},
	{TLSVersionMismatch, 502, Upstream, "tls_protocol_error",
		"We and the upstream have no TLS version in common.",
		"Have the upstream offer TLS 1.2 or 1.3, or lower min_tls_version to \"1.2\" if it is \"1.3\"."},
	{TransferCodingNotSupported, 501, Caller, "http_request_error",
		"The request uses a transfer coding other than chunked.",
		"Send the body with Content-Length or with \"Transfer-Encoding: chunked\"."},
	{TrustBundleUnfit, 502, Proxy, "tls_certificate_error",
		"A certificate in our trust bundle cannot vouch for the upstream's, which was issued by it.",
		"Replace the authority's certificate in the ca of the trust bundle that the log names, and reload."},
	{TunnelIdleTimeout, 408, Caller, "connection_read_timeout",
		"Nothing passed the tunnel in either direction for longer than timeout.tunnel_idle.",
		"Have the program send a ping more often than that, or raise timeout.tunnel_idle."},
	{TunnelResponseMalformed, 502, Upstream, "http_protocol_error",
		"The HTTP proxy on the way to the upstream did not answer CONNECT in a way that can be followed.",
		"Check that the upstream's proxy names an HTTP proxy and its port, and report the broken answer to the proxy's operator."},
	{UnsolicitedResponse, 502, Upstream, "http_protocol_error",
		"The upstream sent something nobody had asked for.",
		"Report it to the upstream's operator; the connection was given up for safety."},
	{UpgradeFailed, 502, Upstream, "http_upgrade_failed",
		"The upstream's answer to the protocol upgrade was not one we can follow.",
		"Check that the upstream supports the protocol that the Upgrade field names."},
	{URITooLong, 414, Caller, "http_request_error",
		"The request line is longer than allowed.",
		"Send a shorter URL, or raise limits.max_request_line."},
}

func find(t Token) *entry {
	i, ok := slices.BinarySearchFunc(vocabulary[:], t, func(e entry, t Token) int {
		return strings.Compare(string(e.token), string(t))
	})
	if !ok {
		// A token from outside the vocabulary is a mistake of ours.
		return find(InternalError)
	}
	return &vocabulary[i]
}

// Status returns the status code that the caller is answered with. 499, for a
// caller that is gone, is only recorded.
func (t Token) Status() int { return find(t).status }

// Blame returns whose fault it is.
func (t Token) Blame() Blame { return find(t).blame }

// ProxyError returns the error type of RFC 9209 that comes nearest.
func (t Token) ProxyError() string { return find(t).proxyError }

// Summary says in one sentence what happened.
func (t Token) Summary() string { return find(t).summary }

// Fix says in one sentence what to do about it.
func (t Token) Fix() string { return find(t).fix }

// Tokens returns every token, sorted.
func Tokens() []Token {
	all := make([]Token, len(vocabulary))
	for i := range vocabulary {
		all[i] = vocabulary[i].token
	}
	return all
}
