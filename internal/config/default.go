package config

import (
	"time"
)

// Default holds every default there is. The tables named "default", the
// listener "http" and the one route are what tables of their kind start from;
// they also show which keys have no default: these are empty.
func Default() *Config {
	seconds := func(n int) Duration { return Duration{time.Duration(n) * time.Second} }
	return &Config{
		Identity: map[string]*Identity{"default": {}},
		Trust:    map[string]*Trust{"default": {}},
		Upstream: map[string]*Upstream{"default": {
			Identity:      "default",
			Trust:         "default",
			VerifyPeer:    VerifyServerName,
			Host:          HostUpstream,
			Forwarded:     ForwardedStrip,
			Via:           true,
			MinTLSVersion: TLS12,
			Balance:       BalanceLeastRequests,
			Pool: Pool{
				MaxIdle:     10,
				IdleTimeout: seconds(45),
				MaxAge:      Duration{time.Hour},
			},
			Timeout: UpstreamTimeout{
				Connect:        seconds(5),
				TLSHandshake:   seconds(10),
				ResponseHeader: seconds(60),
				Idle:           seconds(60),
				Request:        seconds(60),
				TunnelIdle:     Duration{time.Hour},
			},
			Retry: Retry{
				Attempts: 2,
				On:       []string{RetryConnect, RetryUnsent, RetryReset},
				Budget:   0.2,
				MaxBody:  Size{64 * kib},
				Backoff:  Duration{25 * time.Millisecond},
			},
			CircuitBreaker: CircuitBreaker{
				FailureRatio: 0.5,
				MinRequests:  20,
				Window:       seconds(10),
				OpenFor:      seconds(5),
				Probes:       3,
			},
			HealthCheck: HealthCheck{
				Interval:       seconds(10),
				Timeout:        seconds(2),
				Expect:         []int{200, 204},
				UnhealthyAfter: 3,
				HealthyAfter:   2,
			},
		}},
		Listener: map[string]*Listener{"http": {
			Address:         []string{"127.0.0.1:8080"},
			AllowedHosts:    []string{"localhost", "127.0.0.1", "[::1]"},
			BrowserRequests: BrowserDeny,
			UnixMode:        FileMode{0o660},
		}},
		Route: []Route{{
			PathPrefix:      "/",
			MaxRequestBody:  Size{10 * mib},
			RewriteLocation: true,
		}},
		Limits: Limits{
			MaxConnections:        1000,
			MaxConcurrentRequests: 100,
			QueueTimeout:          seconds(1),
			MaxRequestBody:        Size{10 * mib},
			MaxHeaderBytes:        Size{64 * kib},
			MaxRequestLine:        Size{16 * kib},
			HeaderTimeout:         seconds(10),
			IdleTimeout:           Duration{15 * time.Minute},
		},
		RateLimit: GlobalRateLimit{
			RateLimit:     RateLimit{RequestsPerSecond: 100, Burst: 200, Key: RateKeyAll},
			SharedFailure: SharedFailureLocal,
		},
		SecurityHeaders: SecurityHeaders{
			Enabled:            true,
			ContentTypeOptions: "nosniff",
			FrameOptions:       "DENY",
			ReferrerPolicy:     "no-referrer",
		},
		Admin: Admin{
			Address: "127.0.0.1:8081",
			Socket:  "/run/mtls-proxy/admin.sock",
			Open:    []string{"/livez", "/readyz", "/metrics"},
		},
		Log:    Log{Level: "info", Format: "auto", Access: "errors", Slow: seconds(5)},
		Reload: Reload{DrainTimeout: seconds(30)},
	}
}
