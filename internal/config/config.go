// Package config reads the configuration: a TOML file, the drop-ins beside it
// and what flags override, checked as a whole and completed with defaults.
package config

import (
	"io/fs"
	"net/url"
	"time"
)

// Config is the effective configuration: every default is filled in, every
// reference exists, every path is absolute. It is not changed after Load.
type Config struct {
	Identity        map[string]*Identity `toml:"identity"`
	Trust           map[string]*Trust    `toml:"trust"`
	Upstream        map[string]*Upstream `toml:"upstream"`
	Listener        map[string]*Listener `toml:"listener"`
	Route           []Route              `toml:"route"` // in file order; never empty
	Limits          Limits               `toml:"limits"`
	RateLimit       GlobalRateLimit      `toml:"rate_limit"`
	SecurityHeaders SecurityHeaders      `toml:"security_headers"`
	Admin           Admin                `toml:"admin"`
	Log             Log                  `toml:"log"`
	Reload          Reload               `toml:"reload"`

	// Files are the files that were read, in the order in which they count.
	Files  []string `toml:"-"`
	Masked []string `toml:"-"` // drop-ins that are links to /dev/null, and so are not there
	// Warnings are what an operator should look at although it is allowed.
	Warnings []Problem `toml:"-"`

	origins map[string]Origin
}

// Identity is a client certificate: the PEM files of its chain and its key.
type Identity struct {
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
}

// Trust is a set of certification authorities. Without CA, SystemRoots is true.
type Trust struct {
	CA          []string `toml:"ca"`
	SystemRoots bool     `toml:"system_roots"`
}

// Upstream is one remote service. Exactly one of URL, URLs and SRV is set;
// Endpoints makes one of the first two, and the third is for DNS to answer.
// BackupURLs and Weights are not set beside SRV.
type Upstream struct {
	URL        *url.URL   `toml:"url"`         // https, a host, perhaps a port, nothing else; nil with URLs and with SRV
	URLs       []*url.URL `toml:"urls"`        // like URL, no two alike
	BackupURLs []*url.URL `toml:"backup_urls"` // like URLs, none of which is here
	SRV        string     `toml:"srv"`         // "_service._tcp.name", lower case, without a final dot
	Identity   string     `toml:"identity"`
	Trust      string     `toml:"trust"`
	VerifyPeer VerifyPeer `toml:"verify_peer"`
	PeerNames  []string   `toml:"peer_names"`
	PeerPins   []Pin      `toml:"peer_pins"`
	// ServerName is a DNS name, or an IP address without brackets. It is empty
	// when the URLs have several hosts and none was set: each endpoint then has
	// its own, see Endpoints.
	ServerName        string          `toml:"server_name"`
	Host              string          `toml:"host"` // HostUpstream, HostPreserve or the literal Host field; HostField and Endpoint.Host resolve it
	MinTLSVersion     TLSVersion      `toml:"min_tls_version"`
	Balance           Balance         `toml:"balance"`
	Forwarded         Forwarded       `toml:"forwarded"`
	Via               bool            `toml:"via"`
	Bind              string          `toml:"bind"`                // an IP address without a zone; "": whichever fits
	Proxy             *url.URL        `toml:"proxy"`               // http, perhaps a user without a password, a host and a port; nil: none
	ProxyPasswordFile string          `toml:"proxy_password_file"` // "": no password; Config.ProxyPassword reads it
	Weights           map[string]int  `toml:"weights"`             // by URL as in the file; each is one of URL, URLs and BackupURLs
	Pool              Pool            `toml:"pool"`
	Timeout           UpstreamTimeout `toml:"timeout"`
	Retry             Retry           `toml:"retry"`
	CircuitBreaker    CircuitBreaker  `toml:"circuit_breaker"`
	HealthCheck       HealthCheck     `toml:"health_check"`
}

// VerifyPeer says what a server must prove besides a valid chain.
type VerifyPeer string

// The values of VerifyPeer.
const (
	VerifyServerName VerifyPeer = "server_name"
	VerifyPeerNames  VerifyPeer = "peer_names"
	VerifyPeerPins   VerifyPeer = "peer_pins"
)

// The values of Upstream.Host that are not a literal Host field.
const (
	HostUpstream = "upstream"
	HostPreserve = "preserve"
)

// Balance says which endpoint a request goes to.
type Balance string

// The values of Balance.
const (
	BalanceLeastRequests Balance = "least_requests"
	BalanceRoundRobin    Balance = "round_robin"
	BalanceFirst         Balance = "first"
)

// Forwarded says what becomes of the Forwarded and X-Forwarded-* fields.
type Forwarded string

// The values of Forwarded.
const (
	ForwardedStrip Forwarded = "strip"
	ForwardedPass  Forwarded = "pass"
	ForwardedAdd   Forwarded = "add"
)

// TLSVersion is the lowest version of TLS that is spoken.
type TLSVersion string

// The values of TLSVersion.
const (
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

// Pin is the SHA-256 of a SubjectPublicKeyInfo.
type Pin [32]byte

// Pool bounds the kept connections of one endpoint.
type Pool struct {
	MaxIdle     int      `toml:"max_idle"`
	MaxActive   int      `toml:"max_active"` // 0: no bound of its own
	IdleTimeout Duration `toml:"idle_timeout"`
	MaxAge      Duration `toml:"max_age"`
}

// UpstreamTimeout bounds the phases of an exchange with an upstream.
type UpstreamTimeout struct {
	Connect        Duration `toml:"connect"`
	TLSHandshake   Duration `toml:"tls_handshake"`
	ResponseHeader Duration `toml:"response_header"`
	Idle           Duration `toml:"idle"`
	Request        Duration `toml:"request"`
	TunnelIdle     Duration `toml:"tunnel_idle"`
}

// Retry says when a request is tried again, and how often.
type Retry struct {
	Attempts   int      `toml:"attempts"`    // tries after the first; 0: none
	TryTimeout Duration `toml:"try_timeout"` // 0: none of its own
	On         []string `toml:"on"`          // of the Retry… constants; may be empty, which is like no attempts
	Budget     float64  `toml:"budget"`      // retries per request, 0 to 1
	MaxBody    Size     `toml:"max_body"`
	Backoff    Duration `toml:"backoff"`
}

// The values of Retry.On.
const (
	RetryConnect            = "connect"
	RetryUnsent             = "unsent"
	RetryReset              = "reset"
	RetryBadGateway         = "502"
	RetryServiceUnavailable = "503"
	RetryGatewayTimeout     = "504"
	RetryTimeout            = "timeout"
)

// CircuitBreaker says when an upstream gets no requests for a while.
type CircuitBreaker struct {
	FailureRatio float64  `toml:"failure_ratio"` // above 0, at most 1
	MinRequests  int      `toml:"min_requests"`
	Window       Duration `toml:"window"`
	OpenFor      Duration `toml:"open_for"`
	Probes       int      `toml:"probes"`
}

// HealthCheck is the request that asks each endpoint how it is. There are no
// checks while Path is empty.
type HealthCheck struct {
	Path           string   `toml:"path"`
	Interval       Duration `toml:"interval"`
	Timeout        Duration `toml:"timeout"` // at most Interval
	Expect         []int    `toml:"expect"`  // statuses of the healthy; never empty with a Path
	UnhealthyAfter int      `toml:"unhealthy_after"`
	HealthyAfter   int      `toml:"healthy_after"`
}

// Listener is where callers reach us.
type Listener struct {
	Address                 []string        `toml:"address"` // "127.0.0.1:8080", "[::1]:8080", "unix:/abs/path"; empty: only sockets from systemd
	AllowedHosts            []string        `toml:"allowed_hosts"`
	AllowedOrigins          []string        `toml:"allowed_origins"`
	BrowserRequests         BrowserRequests `toml:"browser_requests"`
	UnixMode                FileMode        `toml:"unix_mode"`
	UnixGroup               string          `toml:"unix_group"`                 // name or number; "": the group of the process
	MaxConnectionsPerCaller int             `toml:"max_connections_per_caller"` // 0: no share of its own
}

// BrowserRequests says whether web pages may use a listener.
type BrowserRequests string

// The values of BrowserRequests.
const (
	BrowserDeny  BrowserRequests = "deny"
	BrowserAllow BrowserRequests = "allow"
)

// FileMode holds permission bits, written in octal as in chmod.
type FileMode struct{ fs.FileMode }

// Route sends exchanges to an upstream. Empty Listener, Host and Methods match
// everything.
type Route struct {
	Listener        string      `toml:"listener"`
	Host            string      `toml:"host"` // lower case; exact or "*.name"
	PathPrefix      string      `toml:"path_prefix"`
	Methods         []string    `toml:"methods"`
	StripPrefix     string      `toml:"strip_prefix"`
	AddPrefix       string      `toml:"add_prefix"`
	Upstream        string      `toml:"upstream"`
	MaxRequestBody  Size        `toml:"max_request_body"` // that of Limits where the route sets none
	RewriteLocation bool        `toml:"rewrite_location"`
	RateLimit       *RateLimit  `toml:"rate_limit"` // nil: only that of Config; its RequestsPerSecond is never 0
	RequestHeaders  HeaderEdits `toml:"request_headers"`
	ResponseHeaders HeaderEdits `toml:"response_headers"`
}

// HeaderEdits are changes to header fields. Names are valid tokens, none of
// them Host, framing or hop-by-hop.
type HeaderEdits struct {
	Set    map[string]string `toml:"set"`
	Add    map[string]string `toml:"add"`
	Remove []string          `toml:"remove"`
}

// Limits bound what the whole process takes on.
type Limits struct {
	MaxConnections        int      `toml:"max_connections"`
	MaxConcurrentRequests int      `toml:"max_concurrent_requests"`
	QueueTimeout          Duration `toml:"queue_timeout"`
	MaxRequestBody        Size     `toml:"max_request_body"`
	MaxHeaderBytes        Size     `toml:"max_header_bytes"`
	MaxRequestLine        Size     `toml:"max_request_line"`
	HeaderTimeout         Duration `toml:"header_timeout"`
	IdleTimeout           Duration `toml:"idle_timeout"`
}

// RateLimit is a token bucket for each value of Key.
type RateLimit struct {
	RequestsPerSecond float64 `toml:"requests_per_second"` // 0: off
	Burst             int     `toml:"burst"`               // at least 1
	Key               string  `toml:"key"`                 // one of the following, or a field that Header names
}

// The values of RateLimit.Key that name no header field.
const (
	RateKeyAll  = "all"
	RateKeyUser = "user"
	RateKeyUnit = "unit"
	RateKeyIP   = "ip"
)

// GlobalRateLimit stands before all proxied requests.
type GlobalRateLimit struct {
	RateLimit
	Shared             string        `toml:"shared"`               // redis://, rediss:// or unix:// URL without a password; "": none
	SharedPasswordFile string        `toml:"shared_password_file"` // "": no password; Config.SharedPassword reads it
	SharedFailure      SharedFailure `toml:"shared_failure"`
}

// SharedFailure says what counts while the store of a shared limit is away.
type SharedFailure string

// The values of SharedFailure.
const (
	SharedFailureLocal SharedFailure = "local"
	SharedFailureAllow SharedFailure = "allow"
	SharedFailureDeny  SharedFailure = "deny"
)

// SecurityHeaders are response fields for upstreams that do not set them. An
// empty value leaves the field out.
type SecurityHeaders struct {
	Enabled                 bool   `toml:"enabled"`
	StrictTransportSecurity string `toml:"strict_transport_security"`
	ContentTypeOptions      string `toml:"content_type_options"`
	FrameOptions            string `toml:"frame_options"`
	ReferrerPolicy          string `toml:"referrer_policy"`
	ContentSecurityPolicy   string `toml:"content_security_policy"`
}

// Admin is the surface for operators.
type Admin struct {
	Address string            `toml:"address"` // "": none
	Socket  string            `toml:"socket"`  // absolute path; "": none
	Users   map[string]string `toml:"users"`   // name to bcrypt hash
	Open    []string          `toml:"open"`
	TLS     AdminTLS          `toml:"tls"`
}

// AdminTLS holds the PEM files for TLS on Admin.Address. All empty: plain HTTP.
type AdminTLS struct {
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	ClientCA    string `toml:"client_ca"` // "": no client certificate is asked for
}

// Log says what is recorded and how.
type Log struct {
	Level  string   `toml:"level"`  // trace debug info warn error
	Format string   `toml:"format"` // auto journal text json
	Access string   `toml:"access"` // all errors off
	Path   bool     `toml:"path"`
	Slow   Duration `toml:"slow"`
}

// Reload says how generations follow each other.
type Reload struct {
	DrainTimeout Duration `toml:"drain_timeout"`
}

// Duration is written with a unit: "250ms", "30s", "36h". A bare number is a
// Problem.
type Duration struct{ time.Duration }

// Size is a number of bytes, written with a unit: "64KiB", "10MB".
type Size struct{ Bytes int64 }
