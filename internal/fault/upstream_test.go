package fault_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// TestRefusedClientCertificates runs real handshakes with a server that does
// not like the client's certificate. With TLS 1.3 its alert arrives after the
// client's side of the handshake is done, with the first read.
func TestRefusedClientCertificates(t *testing.T) {
	newAuthority := func() *demo.Authority {
		a, err := demo.NewAuthority(demo.AuthorityOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ours, other := newAuthority(), newAuthority()
	issue := func(a *demo.Authority, r demo.Request) *tls.Certificate {
		i, err := a.Issue(r)
		if err != nil {
			t.Fatal(err)
		}
		c := i.TLS()
		return &c
	}
	past := time.Now().Add(-time.Hour)
	for _, tc := range []struct {
		name         string
		certificate  *tls.Certificate
		tls12, tls13 fault.Token
	}{
		{"none", &tls.Certificate{}, fault.TLSAlert, fault.ClientCertificateRequired}, // TLS 1.2 only has handshake_failure for it
		{"of another authority", issue(other, demo.Request{}), fault.ClientCAUnknown, fault.ClientCAUnknown},
		{"expired", issue(ours, demo.Request{NotBefore: past.Add(-time.Hour), NotAfter: past}), fault.ClientCertificateExpired, fault.ClientCertificateExpired},
		{"for servers", issue(ours, demo.Request{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), fault.ClientCertificateRejected, fault.ClientCertificateRejected},
	} {
		for version, want := range map[uint16]fault.Token{tls.VersionTLS12: tc.tls12, tls.VersionTLS13: tc.tls13} {
			t.Run(tc.name+", "+tls.VersionName(version), func(t *testing.T) {
				u, err := demo.NewUpstream(demo.UpstreamOptions{Authority: ours, MinVersion: version, MaxVersion: version})
				if err != nil {
					t.Fatal(err)
				}
				defer u.Close()
				phase := fault.PhaseHandshake
				conn, err := tls.Dial("tcp", u.Addr(), &tls.Config{
					RootCAs: ours.Pool(),
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						return tc.certificate, nil
					},
				})
				if err == nil {
					defer conn.Close()
					phase = fault.PhaseReceive
					_, err = conn.Read(make([]byte, 1))
				}
				if f := fault.Classify(phase, err); f == nil || f.Token != want {
					t.Errorf("phase %d: %v, want %s (upstream: %v)", phase, f, want, u.HandshakeError())
				}
			})
		}
	}
}
