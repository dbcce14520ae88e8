package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func issue(t testing.TB, a *demo.Authority, r demo.Request) *demo.Issued {
	t.Helper()
	if r.Usage == nil {
		r.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if r.Names == nil && r.IPs == nil && r.URIs == nil {
		r.Names = []string{"api.example.net"}
	}
	i, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// presented is what VerifyConnection gets of a server that presents i.
func presented(i *demo.Issued) tls.ConnectionState {
	return tls.ConnectionState{PeerCertificates: i.Chain}
}

// token names what Verify found; "" is acceptance.
func token(err error) fault.Token {
	if err == nil {
		return ""
	}
	return fault.Classify(fault.PhaseHandshake, err).Token
}

func TestVerifyNamesAndPins(t *testing.T) {
	root := authority(t, demo.AuthorityOptions{Name: "root"})
	middle, err := root.Intermediate(demo.AuthorityOptions{Name: "middle"})
	if err != nil {
		t.Fatal(err)
	}
	bundle := load(t, root.PEM())
	server := issue(t, middle, demo.Request{
		Names: []string{"api.example.net", "*.wild.example.net", "Upper.Example.NET"},
		IPs:   []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")},
		URIs:  []string{"spiffe://example.net/api"},
	})
	other := issue(t, middle, demo.Request{})
	pin := func(c *x509.Certificate) [][32]byte { return [][32]byte{Pin(other.Leaf), Pin(c)} }

	for _, tc := range []struct {
		name string
		peer Peer
		want fault.Token
	}{
		{"server name", Peer{ServerName: "api.example.net"}, ""},
		{"server name in capitals", Peer{ServerName: "API.example.NET"}, ""},
		{"server name with a final dot", Peer{ServerName: "api.example.net."}, ""},
		{"server name under a wildcard", Peer{ServerName: "a.wild.example.net"}, ""},
		{"wildcards cover one label", Peer{ServerName: "a.b.wild.example.net"}, fault.ServerNameMismatch},
		{"IPv4 address", Peer{ServerName: "192.0.2.1"}, ""},
		{"IPv6 address", Peer{ServerName: "2001:db8::1"}, ""},
		{"another address", Peer{ServerName: "192.0.2.2"}, fault.ServerNameMismatch},
		{"another name", Peer{ServerName: "example.net"}, fault.ServerNameMismatch},
		{"no name", Peer{}, fault.ConfigurationError},

		{"peer name", Peer{ServerName: "ignored", Mode: VerifyPeerNames, Names: []string{"nope", "api.example.net"}}, ""},
		{"peer URI", Peer{Mode: VerifyPeerNames, Names: []string{"spiffe://example.net/api"}}, ""},
		{"peer URI is exact", Peer{Mode: VerifyPeerNames, Names: []string{"spiffe://example.net/ap", "spiffe://example.net/api/", "spiffe://example.net/*"}}, fault.ServerNameMismatch},
		{"peer pattern", Peer{Mode: VerifyPeerNames, Names: []string{"*.example.net"}}, ""},
		{"peer pattern in capitals", Peer{Mode: VerifyPeerNames, Names: []string{"*.EXAMPLE.net"}}, ""},
		{"peer pattern equal to the certificate's", Peer{Mode: VerifyPeerNames, Names: []string{"*.wild.example.net"}}, ""},
		{"peer pattern covers one label", Peer{Mode: VerifyPeerNames, Names: []string{"*.net"}}, fault.ServerNameMismatch},
		{"peer pattern of everything", Peer{Mode: VerifyPeerNames, Names: []string{"*", "*.", "*.*.net", "a*.example.net", "spiffe://*", ""}}, fault.ServerNameMismatch},
		{"no peer names", Peer{ServerName: "api.example.net", Mode: VerifyPeerNames}, fault.ServerNameMismatch},
		{"peer names beside the server name", Peer{ServerName: "api.example.net", Names: []string{"nope"}}, fault.ServerNameMismatch},

		{"pin of the leaf", Peer{Mode: VerifyPeerPins, Pins: pin(server.Leaf)}, ""},
		{"pin of the intermediate", Peer{Mode: VerifyPeerPins, Pins: pin(middle.Certificate())}, ""},
		{"pin of the root", Peer{Mode: VerifyPeerPins, Pins: pin(root.Certificate())}, ""},
		{"another pin", Peer{Mode: VerifyPeerPins, Pins: pin(other.Leaf)}, fault.ServerPinMismatch},
		{"no pins", Peer{ServerName: "api.example.net", Mode: VerifyPeerPins}, fault.ServerPinMismatch},
		{"pins beside the server name", Peer{ServerName: "api.example.net", Pins: pin(other.Leaf)}, fault.ServerPinMismatch},
		{"pin and names, all good", Peer{ServerName: "api.example.net", Names: []string{"*.example.net"}, Pins: pin(server.Leaf)}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 { // the second finds the chain in the bundle's memory
				if err := bundle.Verify(&tc.peer, presented(server)); token(err) != tc.want {
					t.Errorf("Verify(%+v) = %v (%s), want %q", tc.peer, err, token(err), tc.want)
				}
			}
		})
	}
}

func TestVerifyChain(t *testing.T) {
	root, stranger := authority(t, demo.AuthorityOptions{}), authority(t, demo.AuthorityOptions{})
	middle, err := root.Intermediate(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	short, err := root.Intermediate(demo.AuthorityOptions{RSABits: 1024})
	if err != nil {
		t.Fatal(err)
	}
	shortRoot := authority(t, demo.AuthorityOptions{Name: "short", RSABits: 1024})
	bundle := load(t, root.PEM(), shortRoot.PEM())
	now := time.Now()
	self := issue(t, stranger, demo.Request{})
	incomplete := issue(t, middle, demo.Request{})
	incomplete.Chain = incomplete.Chain[:1]

	for _, tc := range []struct {
		name   string
		server *demo.Issued
		want   fault.Token
	}{
		{"good", issue(t, root, demo.Request{}), ""},
		{"good, through an intermediate", issue(t, middle, demo.Request{}), ""},
		{"good, RSA 2048", issue(t, root, demo.Request{RSABits: 2048}), ""},
		{"another authority", self, fault.ServerCertificateUntrusted},
		{"intermediate not sent", incomplete, fault.ServerCertificateUntrusted},
		{"expired", issue(t, root, demo.Request{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}), fault.ServerCertificateExpired},
		{"not yet valid", issue(t, root, demo.Request{NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}), fault.ServerCertificateNotYetValid},
		{"for clients only", issue(t, root, demo.Request{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), fault.ServerCertificateInvalid},
		{"RSA 1024 in the leaf", issue(t, root, demo.Request{RSABits: 1024}), fault.ServerKeyTooWeak},
		{"RSA 1024 in the intermediate", issue(t, short, demo.Request{}), fault.ServerKeyTooWeak},
		{"RSA 1024 in the root", issue(t, shortRoot, demo.Request{}), fault.ServerKeyTooWeak},
		{"nothing presented", &demo.Issued{}, fault.ServerCertificateInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 {
				err := bundle.Verify(&Peer{ServerName: "api.example.net"}, presented(tc.server))
				if token(err) != tc.want {
					t.Errorf("Verify = %v (%s), want %q", err, token(err), tc.want)
				}
			}
		})
	}
}

// TestStrongChainBesideAWeakOne: an intermediate that two roots signed is
// judged by the good chain, and only that one counts for pins.
func TestStrongChainBesideAWeakOne(t *testing.T) {
	signed := func(name string, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer, ca bool) *x509.Certificate {
		t.Helper()
		c := &x509.Certificate{
			SerialNumber:          big.NewInt(1),
			Subject:               pkix.Name{CommonName: name},
			NotBefore:             time.Now().Add(-time.Hour),
			NotAfter:              time.Now().Add(time.Hour),
			IsCA:                  ca,
			BasicConstraintsValid: ca,
			DNSNames:              []string{"api.example.net"},
		}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c
	}
	key := func() crypto.Signer {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	strongKey, middleKey, leafKey := key(), key(), key()
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	strong := signed("strong", strongKey, nil, strongKey, true)
	weak := signed("weak", weakKey, nil, weakKey, true)
	byStrong := signed("middle", middleKey, strong, strongKey, true)
	byWeak := signed("middle", middleKey, weak, weakKey, true)
	leaf := signed("leaf", leafKey, byStrong, middleKey, false)

	pemOf := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	server := &demo.Issued{Chain: []*x509.Certificate{leaf, byWeak, byStrong}}
	peer := func(pins ...[32]byte) *Peer { return &Peer{ServerName: "api.example.net", Pins: pins} }
	both, weakOnly := load(t, pemOf(weak), pemOf(strong)), load(t, pemOf(weak))
	for _, tc := range []struct {
		name   string
		bundle *Bundle
		peer   *Peer
		want   fault.Token
	}{
		{"both roots", both, peer(), ""},
		{"weak root only", weakOnly, peer(), fault.ServerKeyTooWeak},
		{"both roots, strong one pinned", both, peer(Pin(strong)), ""},
		{"both roots, weak one pinned", both, peer(Pin(weak)), fault.ServerPinMismatch},
	} {
		if err := tc.bundle.Verify(tc.peer, presented(server)); token(err) != tc.want {
			t.Errorf("%s: Verify = %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestVerifyFollowsTheClock: a chain that was good once is refused when its time is over.
func TestVerifyFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := authority(t, demo.AuthorityOptions{})
		middle, err := root.Intermediate(demo.AuthorityOptions{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		bundle := load(t, root.PEM())
		server := issue(t, middle, demo.Request{})
		peer := &Peer{ServerName: "api.example.net"}
		for range 3 {
			if err := bundle.Verify(peer, presented(server)); err != nil {
				t.Fatalf("Verify = %v, want acceptance", err)
			}
		}
		if n := len(bundle.chains); n != 1 {
			t.Errorf("%d verdicts are kept for one server, want 1", n)
		}
		time.Sleep(time.Hour + time.Second) // in the bubble, at once
		if err := bundle.Verify(peer, presented(server)); token(err) != fault.ServerCertificateExpired {
			t.Errorf("Verify after the intermediate's end = %v, want %s", err, fault.ServerCertificateExpired)
		}
	})
}

// TestVerdictsAreBounded: a server that changes its certificate all the time fills no memory.
func TestVerdictsAreBounded(t *testing.T) {
	root := authority(t, demo.AuthorityOptions{})
	bundle := load(t, root.PEM())
	server := issue(t, root, demo.Request{})
	for range 2*maxChains + 1 {
		next := issue(t, root, demo.Request{Key: server.Key})
		if err := bundle.Verify(&Peer{ServerName: "api.example.net"}, presented(next)); err != nil {
			t.Fatal(err)
		}
		if n := len(bundle.chains); n > maxChains {
			t.Fatalf("%d verdicts are kept, want at most %d", n, maxChains)
		}
	}
}

// TestVerifyOnTheWire runs full and resumed handshakes of both versions: what
// Verify refuses, it refuses in a resumed session as well.
func TestVerifyOnTheWire(t *testing.T) {
	root := authority(t, demo.AuthorityOptions{})
	bundle := load(t, root.PEM())
	stranger := load(t, authority(t, demo.AuthorityOptions{}).PEM())
	server := issue(t, root, demo.Request{Names: []string{"api.example.net"}})
	good := &Peer{ServerName: "api.example.net"}

	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			u, err := demo.NewUpstream(demo.UpstreamOptions{
				Authority: root, Certificate: server, ClientCertificate: demo.Unasked, MinVersion: version, MaxVersion: version,
				Script: func(c *demo.Conn) { _, _ = c.WriteString("x"); c.WaitClosed() },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			cache := tls.NewLRUClientSessionCache(1)
			// connect reports whether the session was a resumed one; the
			// handshake's error is what Verify said.
			connect := func(b *Bundle, p *Peer) (resumed bool, err error) {
				var calls int
				conn, err := tls.Dial("tcp", u.Addr(), &tls.Config{
					ServerName:         "api.example.net", // the key of the session
					ClientSessionCache: cache,
					InsecureSkipVerify: true, // Verify does it all
					VerifyConnection: func(cs tls.ConnectionState) error {
						calls++
						resumed = cs.DidResume
						return b.Verify(p, cs)
					},
				})
				if calls != 1 {
					t.Errorf("Verify was called %d times, want once", calls)
				}
				if err != nil {
					return resumed, err
				}
				defer conn.Close()
				_, err = io.ReadFull(conn, make([]byte, 1)) // TLS 1.3 sends tickets before it
				return resumed, err
			}
			expect := func(what string, b *Bundle, p *Peer, wantResumed bool, want fault.Token) {
				t.Helper()
				resumed, err := connect(b, p)
				if resumed != wantResumed || token(err) != want {
					t.Errorf("%s: resumed %v, %v; want resumed %v, %q", what, resumed, err, wantResumed, want)
				}
			}
			pinned := &Peer{ServerName: "api.example.net", Pins: [][32]byte{{1}}}
			named := &Peer{Mode: VerifyPeerNames, Names: []string{"other.example.net"}}
			refusals := []struct {
				what string
				b    *Bundle
				p    *Peer
				want fault.Token
			}{
				{"another trust bundle", stranger, good, fault.ServerCertificateUntrusted},
				{"another name", bundle, &Peer{ServerName: "other.example.net"}, fault.ServerNameMismatch},
				{"another peer name", bundle, named, fault.ServerNameMismatch},
				{"another pin", bundle, pinned, fault.ServerPinMismatch},
			}
			for _, r := range refusals {
				expect(r.what+", full", r.b, r.p, false, r.want)
			}
			expect("good, full", bundle, good, false, "")
			for _, r := range refusals {
				expect("good, resumed", bundle, good, true, "")
				// A refused resumption may cost the session; the next one is then full.
				resumed, err := connect(r.b, r.p)
				if !resumed || token(err) != r.want {
					t.Errorf("%s, resumed: resumed %v, %v; want resumed and %q", r.what, resumed, err, r.want)
				}
				if _, err := connect(bundle, good); err != nil {
					t.Errorf("good, after a refusal: %v", err)
				}
			}
		})
	}
}

func TestErrorsSayWhatTheServerIs(t *testing.T) {
	root := authority(t, demo.AuthorityOptions{})
	bundle := load(t, root.PEM())
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("n%d.example.net", i))
	}
	server := issue(t, root, demo.Request{Names: many, URIs: []string{"spiffe://example.net/x"}})
	err := bundle.Verify(&Peer{Mode: VerifyPeerNames, Names: []string{"x.example.org"}}, presented(server))
	if err == nil || !strings.Contains(err.Error(), `"n0.example.net"`) || !strings.Contains(err.Error(), "and 13 more") {
		t.Errorf("the error does not list the certificate's names: %v", err)
	}
	err = bundle.Verify(&Peer{Mode: VerifyPeerPins, Pins: [][32]byte{{}}}, presented(server))
	if err == nil || !strings.Contains(err.Error(), "sha256//") {
		t.Errorf("the error does not tell the server's pin: %v", err)
	}
	var f *fault.Fault
	if !errors.As(err, &f) || f.Detail != "" {
		t.Errorf("the caller is told more than the summary: %+v", f)
	}
}

func BenchmarkVerify(b *testing.B) {
	root := authority(b, demo.AuthorityOptions{})
	bundle := load(b, root.PEM())
	server := issue(b, root, demo.Request{})
	peer := &Peer{ServerName: "api.example.net"}
	b.ReportAllocs()
	for b.Loop() {
		if err := bundle.Verify(peer, presented(server)); err != nil {
			b.Fatal(err)
		}
	}
}
