package proxy

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// The likeliest first mistake: https://localhost:8080.
func TestTLSToAPlainListener(t *testing.T) {
	k := start(t, setup{})
	c := k.dial()
	err := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}).Handshake() //nolint:gosec // there is nothing to verify
	if err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
		t.Errorf("Handshake() = %v", err)
	}
	k.faulted(fault.TLSOnPlainPort, 400)
}
