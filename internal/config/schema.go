package config

import (
	"math"
	"slices"
	"strings"
	"time"
)

// kind is how a value is written and what it becomes.
type kind uint8

const (
	text      kind = iota // a string
	choice                // one of setting.allowed
	link                  // an https URL
	links                 // a list of https URLs
	proxyLink             // the URL of an HTTP proxy
	path                  // a file, made absolute
	paths                 // a file or a list of files
	list                  // a list of strings
	choices               // a list of strings, each one of setting.allowed
	oneOrList             // a string or a list of strings
	pins                  // a list of SPKI pins
	codes                 // a list of integers
	boolean
	integer
	number // an integer or a float
	duration
	size
	mode // permission bits, in a string
)

// setting is one key of the contract. Reading, show-config, the installed file
// and the page in docs are all held against this list.
type setting struct {
	// pattern is the dotted key; "*" stands for a name of the operator's, and
	// in "route.*" for the number of the route.
	pattern string
	kind    kind
	allowed []string // of a choice
	// least and most bound integers and numbers as such, sizes in bytes,
	// durations in nanoseconds.
	least, most int64
	above       bool // least itself is refused
	// check judges each string of the value; an empty fact means it is fine.
	check func(string) (fact, hint string)
	// checkName judges what stands for the last "*" of the pattern.
	checkName func(string) (fact, hint string)
	secret    bool   // the value is never quoted
	later     string // a hint; not empty: the key is refused in this version
}

const (
	msec   = int64(time.Millisecond)
	minute = int64(time.Minute)
	day    = int64(24 * time.Hour)
	year   = 365 * day

	kib = int64(1) << 10
	mib = int64(1) << 20

	maxRate = 1_000_000_000
)

// schema lists every key of the contract in the order in which it is shown.
func schema() []setting {
	const remove = "remove it"
	return []setting{
		{pattern: "identity.*.certificate", kind: path},
		{pattern: "identity.*.key", kind: path},
		{pattern: "identity.*.pkcs12", later: "convert the file to PEM with openssl pkcs12, then set certificate and key"},
		{pattern: "identity.*.password_file", later: "decrypt the key with openssl pkey, and protect the file by its mode"},
		{pattern: "identity.*.spiffe_socket", later: "set certificate and key"},

		{pattern: "trust.*.ca", kind: paths},
		{pattern: "trust.*.system_roots", kind: boolean},
		{pattern: "trust.*.crl", later: remove},

		{pattern: "upstream.*.url", kind: link, check: checkURL},
		{pattern: "upstream.*.urls", kind: links, check: checkURL},
		{pattern: "upstream.*.backup_urls", kind: links, check: checkURL},
		{pattern: "upstream.*.srv", kind: text, check: checkSRV},
		{pattern: "upstream.*.identity", kind: text},
		{pattern: "upstream.*.trust", kind: text},
		{pattern: "upstream.*.server_name", kind: text, check: checkServerName},
		{pattern: "upstream.*.verify_peer", kind: choice, allowed: []string{string(VerifyServerName), string(VerifyPeerNames), string(VerifyPeerPins)}},
		{pattern: "upstream.*.peer_names", kind: list, check: checkPeerName},
		{pattern: "upstream.*.peer_pins", kind: pins, check: checkPin},
		{pattern: "upstream.*.host", kind: text, check: checkHostSent},
		{pattern: "upstream.*.protocols", later: "remove it; HTTP/1.1 is spoken"},
		{pattern: "upstream.*.min_tls_version", kind: choice, allowed: []string{string(TLS12), string(TLS13)}},
		{pattern: "upstream.*.key_exchange", later: remove},
		{pattern: "upstream.*.renegotiation", later: remove},
		{pattern: "upstream.*.balance", kind: choice, allowed: []string{string(BalanceLeastRequests), string(BalanceRoundRobin), string(BalanceFirst)}},
		{pattern: "upstream.*.forwarded", kind: choice, allowed: []string{string(ForwardedStrip), string(ForwardedPass), string(ForwardedAdd)}},
		{pattern: "upstream.*.via", kind: boolean},
		{pattern: "upstream.*.bind", kind: text, check: checkBind},
		{pattern: "upstream.*.proxy", kind: proxyLink, check: checkProxy},
		{pattern: "upstream.*.proxy_password_file", kind: path},
		{pattern: "upstream.*.weights.*", kind: integer, least: 1, most: 1000, checkName: checkURL},
		{pattern: "upstream.*.pool.max_idle", kind: integer, least: 0, most: 100_000},
		{pattern: "upstream.*.pool.max_active", kind: integer, least: 0, most: 100_000},
		{pattern: "upstream.*.pool.idle_timeout", kind: duration, least: msec, most: day},
		{pattern: "upstream.*.pool.max_age", kind: duration, least: msec, most: year},
		{pattern: "upstream.*.timeout.connect", kind: duration, least: msec, most: day},
		{pattern: "upstream.*.timeout.tls_handshake", kind: duration, least: msec, most: day},
		{pattern: "upstream.*.timeout.response_header", kind: duration, least: msec, most: day},
		{pattern: "upstream.*.timeout.idle", kind: duration, least: msec, most: year},
		{pattern: "upstream.*.timeout.request", kind: duration, least: msec, most: day},
		{pattern: "upstream.*.timeout.tunnel_idle", kind: duration, least: msec, most: year},
		{pattern: "upstream.*.retry.attempts", kind: integer, least: 0, most: 10},
		{pattern: "upstream.*.retry.try_timeout", kind: duration, least: 0, most: day},
		{pattern: "upstream.*.retry.on", kind: choices, allowed: []string{RetryConnect, RetryUnsent, RetryReset, RetryBadGateway, RetryServiceUnavailable, RetryGatewayTimeout, RetryTimeout}},
		{pattern: "upstream.*.retry.budget", kind: number, least: 0, most: 1},
		{pattern: "upstream.*.retry.max_body", kind: size, least: 0, most: 64 * mib},
		{pattern: "upstream.*.retry.backoff", kind: duration, least: 0, most: minute},
		{pattern: "upstream.*.circuit_breaker.failure_ratio", kind: number, least: 0, above: true, most: 1},
		{pattern: "upstream.*.circuit_breaker.min_requests", kind: integer, least: 1, most: 1_000_000},
		{pattern: "upstream.*.circuit_breaker.window", kind: duration, least: 100 * msec, most: 60 * minute},
		{pattern: "upstream.*.circuit_breaker.open_for", kind: duration, least: msec, most: 60 * minute},
		{pattern: "upstream.*.circuit_breaker.probes", kind: integer, least: 1, most: 1000},
		{pattern: "upstream.*.health_check.path", kind: text, check: checkPath},
		{pattern: "upstream.*.health_check.interval", kind: duration, least: 100 * msec, most: day},
		{pattern: "upstream.*.health_check.timeout", kind: duration, least: msec, most: day},
		{pattern: "upstream.*.health_check.expect", kind: codes, least: 200, most: 599},
		{pattern: "upstream.*.health_check.unhealthy_after", kind: integer, least: 1, most: 1000},
		{pattern: "upstream.*.health_check.healthy_after", kind: integer, least: 1, most: 1000},

		{pattern: "listener.*.address", kind: oneOrList, check: checkListenAddress},
		{pattern: "listener.*.protocols", later: "remove it; HTTP/1.1 is spoken"},
		{pattern: "listener.*.mode", later: "remove it; listeners speak HTTP"},
		{pattern: "listener.*.upstream", later: "write a [[route]] with listener and upstream"},
		{pattern: "listener.*.allow_units", later: "use a Unix socket with unix_mode and unix_group"},
		{pattern: "listener.*.allow_users", later: "use a Unix socket with unix_mode and unix_group"},
		{pattern: "listener.*.allow_groups", later: "use a Unix socket with unix_mode and unix_group"},
		{pattern: "listener.*.allowed_hosts", kind: list, check: checkAllowedHost},
		{pattern: "listener.*.browser_requests", kind: choice, allowed: []string{string(BrowserDeny), string(BrowserAllow)}},
		{pattern: "listener.*.allowed_origins", kind: list, check: checkAllowedOrigin},
		{pattern: "listener.*.unix_mode", kind: mode},
		{pattern: "listener.*.unix_group", kind: text, check: checkGroup},
		{pattern: "listener.*.max_connections_per_caller", kind: integer, least: 0, most: 1_000_000},
		{pattern: "listener.*.proxy_protocol", later: remove},
		{pattern: "listener.*.tls", later: "remove it; listeners speak plain HTTP"},

		{pattern: "route.*.listener", kind: text},
		{pattern: "route.*.host", kind: text, check: checkRouteHost},
		{pattern: "route.*.path_prefix", kind: text, check: checkPathPrefix},
		{pattern: "route.*.methods", kind: list, check: checkMethod},
		{pattern: "route.*.users", later: "give these callers a listener of their own"},
		{pattern: "route.*.units", later: "give these callers a listener of their own"},
		{pattern: "route.*.strip_prefix", kind: text, check: checkEditedPrefix},
		{pattern: "route.*.add_prefix", kind: text, check: checkEditedPrefix},
		{pattern: "route.*.upstream", kind: text},
		{pattern: "route.*.identity", later: "write a second [upstream.NAME] with that identity"},
		{pattern: "route.*.max_request_body", kind: size, least: 1, most: math.MaxInt64},
		{pattern: "route.*.rewrite_location", kind: boolean},
		{pattern: "route.*.rate_limit.requests_per_second", kind: number, least: 0, above: true, most: maxRate},
		{pattern: "route.*.rate_limit.burst", kind: integer, least: 1, most: maxRate},
		{pattern: "route.*.rate_limit.key", kind: text, check: checkRateLimitKey},
		{pattern: "route.*.request_headers.remove", kind: list, check: checkFieldName},
		{pattern: "route.*.request_headers.set.*", kind: text, secret: true, check: checkFieldValue, checkName: checkFieldName},
		{pattern: "route.*.request_headers.add.*", kind: text, secret: true, check: checkFieldValue, checkName: checkFieldName},
		{pattern: "route.*.response_headers.remove", kind: list, check: checkFieldName},
		{pattern: "route.*.response_headers.set.*", kind: text, check: checkFieldValue, checkName: checkFieldName},
		{pattern: "route.*.response_headers.add.*", kind: text, check: checkFieldValue, checkName: checkFieldName},

		{pattern: "limits.max_connections", kind: integer, least: 1, most: 1_000_000},
		{pattern: "limits.max_concurrent_requests", kind: integer, least: 1, most: 1_000_000},
		{pattern: "limits.queue_timeout", kind: duration, least: 0, most: day},
		{pattern: "limits.max_request_body", kind: size, least: 1, most: math.MaxInt64},
		{pattern: "limits.max_header_bytes", kind: size, least: kib, most: mib},
		{pattern: "limits.max_request_line", kind: size, least: 256, most: mib},
		{pattern: "limits.header_timeout", kind: duration, least: msec, most: day},
		{pattern: "limits.idle_timeout", kind: duration, least: msec, most: year},

		{pattern: "rate_limit.requests_per_second", kind: number, least: 0, most: maxRate},
		{pattern: "rate_limit.burst", kind: integer, least: 1, most: maxRate},
		{pattern: "rate_limit.key", kind: text, check: checkRateLimitKey},
		{pattern: "rate_limit.shared", kind: text, check: checkShared},
		{pattern: "rate_limit.shared_password_file", kind: path},
		{pattern: "rate_limit.shared_failure", kind: choice, allowed: []string{string(SharedFailureLocal), string(SharedFailureAllow), string(SharedFailureDeny)}},

		{pattern: "security_headers.enabled", kind: boolean},
		{pattern: "security_headers.strict_transport_security", kind: text, check: checkFieldValue},
		{pattern: "security_headers.content_type_options", kind: text, check: checkFieldValue},
		{pattern: "security_headers.frame_options", kind: text, check: checkFieldValue},
		{pattern: "security_headers.referrer_policy", kind: text, check: checkFieldValue},
		{pattern: "security_headers.content_security_policy", kind: text, check: checkFieldValue},

		{pattern: "admin.address", kind: text, check: checkAdminAddress},
		{pattern: "admin.socket", kind: path, check: checkSocketPath},
		{pattern: "admin.open", kind: list, check: checkOpenPath},
		{pattern: "admin.users.*", kind: text, secret: true, check: checkHash, checkName: checkUser},
		{pattern: "admin.tls.certificate", kind: path},
		{pattern: "admin.tls.key", kind: path},
		{pattern: "admin.tls.client_ca", kind: path},

		{pattern: "log.level", kind: choice, allowed: []string{"trace", "debug", "info", "warn", "error"}},
		{pattern: "log.format", kind: choice, allowed: []string{"auto", "journal", "text", "json"}},
		{pattern: "log.access", kind: choice, allowed: []string{"all", "errors", "off"}},
		{pattern: "log.path", kind: boolean},
		{pattern: "log.slow", kind: duration, least: msec, most: day},

		{pattern: "reload.watch", later: "remove it; run mtls-proxy reload after a change"},
		{pattern: "reload.drain_timeout", kind: duration, least: 0, most: int64(time.Hour)},

		{pattern: "tracing", later: remove},
	}
}

// node is a step on the way to a setting: a table, or a setting itself.
type node struct {
	children map[string]*node
	any      *node    // what stands below a name
	leaf     *setting // nil for tables
}

// tree arranges the schema for reading.
func tree() *node {
	root := &node{}
	for _, s := range schema() {
		at := root
		for step := range strings.SplitSeq(s.pattern, ".") {
			at = at.grow(step)
		}
		at.leaf = &s
	}
	return root
}

func (n *node) grow(step string) *node {
	if step == "*" {
		if n.any == nil {
			n.any = &node{}
		}
		return n.any
	}
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	if n.children[step] == nil {
		n.children[step] = &node{}
	}
	return n.children[step]
}

// known lists what may stand in the table n, without what this version refuses.
func (n *node) known() []string {
	var names []string
	for name, child := range n.children {
		if child.leaf == nil || child.leaf.later == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// freeform reports whether n maps names of the operator's choice to values,
// as the users do.
func (n *node) freeform() bool { return n.any != nil && n.any.leaf != nil }

// shown is a pattern as people write it: upstream.NAME.url, route.path_prefix.
func (s *setting) shown() string {
	p := strings.Replace(s.pattern, "route.*", "route", 1)
	return strings.ReplaceAll(p, "*", "NAME")
}

// table is the header under which the key stands: "[upstream.NAME.pool]".
func (s *setting) table() string {
	shown := s.shown()
	i := strings.LastIndexByte(shown, '.')
	if i < 0 {
		return ""
	}
	if shown[:i] == "route" {
		return "[[route]]"
	}
	return "[" + shown[:i] + "]"
}
