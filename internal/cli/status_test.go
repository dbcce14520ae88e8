package cli

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/reload"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestStatusTextIsWhatOperatorsKnow(t *testing.T) {
	golden(t, "status.txt", statusText(sample()))
}

func TestStatusJSONKeepsItsNames(t *testing.T) {
	got, err := json.MarshalIndent(sample(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", string(got)+"\n")
}

// sample has something in every field.
func sample() *service.Status {
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	until := day.Add(40 * time.Second)
	return &service.Status{
		Version: "1.2.3", State: service.Serving, PID: 812, Started: day, UptimeSeconds: 3723, Config: "/etc/mtls-proxy/config.toml",
		Generation: 4, Connections: 7, Exchanges: 1,
		Listeners: []service.ListenerStatus{
			{Name: "http", Addresses: []string{"127.0.0.1:8080", "[::1]:8080"}, Inherited: true},
			{Name: "ledger", Addresses: []string{"unix:/run/ledger.sock"}},
		},
		Routes: []service.RouteStatus{{Name: "/bank", Upstream: "bank"}, {Name: "default", Upstream: "ledger"}},
		Upstreams: []service.UpstreamStatus{{Name: "bank", URL: "https://api.bank.example", IdleConnections: 3, ActiveConnections: 1,
			CircuitBreaker: service.BreakerStatus{State: "open", Since: day, Requests: 20, Failures: 12},
			Retries:        service.RetryStatus{Made: 3, Budget: 4}, Endpoints: []service.EndpointStatus{
				{Address: "a.bank.example@10.0.0.1:443", State: "in", Outstanding: 1, IdleConnections: 3, HealthCheck: &service.CheckStatus{At: day, OK: true}},
				{Address: "a.bank.example@[2001:db8::1]:443", State: "ejected", Failures: 5, Until: &until, RefusedAtOnce: 2},
				{Address: "10.0.0.9:8443", State: "unhealthy", Backup: true, HealthCheck: &service.CheckStatus{At: day, Error: "GET /healthz: status 503"}},
			}}},
		Identities: []service.IdentityStatus{
			{Name: "bank", Subject: "CN=billing", Issuer: "CN=Bank CA", Serial: "2f", NotBefore: day, NotAfter: day.Add(36 * time.Hour), DaysLeft: 1},
			{Name: "old", Subject: "CN=old", Issuer: "CN=Bank CA", Serial: "30", NotBefore: day.Add(-time.Hour), NotAfter: day.Add(-time.Minute), DaysLeft: -1},
		},
		Limits:       []service.LimitStatus{{Name: "connections", Used: 7, Limit: 1000}, {Name: "rate_limit"}},
		QueueRefused: 12,
		Store:        &service.StoreStatus{Away: true, Error: "dial tcp 10.0.0.7:6379: connection refused", Slices: 90, RoundTrips: 40, Failures: 2, Missed: 7, Keys: 30},
		Admin:        []string{"127.0.0.1:8081", "unix:/run/mtls-proxy/admin.sock"},
		LastReload: reload.Outcome{
			Generation: 4, At: day, Seconds: 0.012, Changes: []string{`log.level: "info" is now "debug"`},
			Error: "/etc/mtls-proxy/config.toml:3:1: upstream.bank.urll: unknown key\n\thint: did you mean \"url\"?",
		},
		Warnings:          []string{"admin: bind 127.0.0.1:8081: address already in use"},
		LogRecordsDropped: 2,
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\nrun with -update when the change is meant", name, got, want)
	}
}
