package trust

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// minRSABits is the shortest RSA key accepted anywhere in a server's chain.
const minRSABits = 2048

// Mode says what proves that a server is the right one, beside its chain.
type Mode uint8

// What a server proves itself by.
const (
	VerifyServerName Mode = iota // a SAN that covers Peer.ServerName
	VerifyPeerNames              // a SAN that is one of Peer.Names
	VerifyPeerPins               // a key that is one of Peer.Pins
)

// Peer is who a server must be. Names and Pins count in every mode when they
// are set, and must be set in their own. ServerName counts in VerifyServerName
// only: in the other modes it is just what the TLS handshake asks for.
type Peer struct {
	ServerName string              // a DNS name or an IP address
	Mode       Mode                //
	Names      []string            // DNS names, "*." and a name of two labels or more, or URIs
	Pins       [][sha256.Size]byte // SHA-256 of a SubjectPublicKeyInfo
}

// chain is one that was verified once, from leaf to root. Nothing in that
// verdict but the validity depends on the time.
type chain struct {
	certs               []*x509.Certificate
	notBefore, notAfter time.Time
}

// maxChains bounds Bundle.chains. Only servers that we trust get into it.
const maxChains = 128

// Verify checks the server at the other end of cs against b and p. It is meant
// for VerifyConnection of a tls.Config, which crypto/tls calls for resumed
// sessions too; nothing is taken over from the session's first handshake.
//
// It demands a chain to a root of b that is valid now and good for server
// authentication, without an RSA key of less than 2048 bits anywhere (the root
// included), and whatever p names. A pin may be that of any certificate in that
// chain. The error is one that fault.Classify knows.
func (b *Bundle) Verify(p *Peer, cs tls.ConnectionState) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		return fault.New(fault.ServerCertificateInvalid, errors.New("the server presented no certificate"))
	}
	chains, err := b.verified(certs, time.Now())
	if err != nil {
		return err
	}
	if p.Mode == VerifyServerName {
		// With an empty name VerifyHostname would accept nothing; say so plainly.
		if p.ServerName == "" {
			return fault.New(fault.ConfigurationError, errors.New("no server name to verify"))
		}
		if err := certs[0].VerifyHostname(p.ServerName); err != nil {
			return err
		}
	}
	if len(p.Names) > 0 || p.Mode == VerifyPeerNames {
		if err := verifyNames(p.Names, certs[0]); err != nil {
			return err
		}
	}
	if len(p.Pins) > 0 || p.Mode == VerifyPeerPins {
		return verifyPins(p.Pins, chains)
	}
	return nil
}

// verified returns the acceptable chains of the server's certificates. Building
// chains is most of a resumed handshake's work, so those that were found good
// are kept with the time in which they are.
func (b *Bundle) verified(certs []*x509.Certificate, now time.Time) ([]chain, error) {
	key := digest(certs)
	b.mu.Lock()
	kept := b.chains[key]
	b.mu.Unlock()
	if len(kept) > 0 {
		valid := make([]chain, 0, len(kept))
		for _, c := range kept {
			if !now.Before(c.notBefore) && !now.After(c.notAfter) {
				valid = append(valid, c)
			}
		}
		if len(valid) > 0 {
			return valid, nil
		}
	}
	chains, err := b.build(certs, now)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.chains) >= maxChains {
		clear(b.chains)
	}
	b.chains[key] = chains
	return chains, nil
}

// digest identifies the certificates as they were sent, in order.
func digest(certs []*x509.Certificate) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range certs {
		// DER says its own length, so nothing has to stand between two.
		h.Write(c.Raw)
	}
	h.Sum(sum[:0])
	return sum
}

func (b *Bundle) build(certs []*x509.Certificate, now time.Time) ([]chain, error) {
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	found, err := certs[0].Verify(x509.VerifyOptions{
		Roots:         b.Roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		if f := b.explain(certs, now); f != nil {
			f.Err = fmt.Errorf("%w: %w", f.Err, err)
			return nil, f
		}
		return nil, fmt.Errorf("verify the certificate of %q, issued by %q, with trust bundle %q: %w", certs[0].Subject, certs[0].Issuer, b.Name, err)
	}
	var chains []chain
	var weak *x509.Certificate
	for _, f := range found {
		if c := weakest(f); c != nil {
			weak = c
			continue
		}
		c := chain{certs: f, notBefore: f[0].NotBefore, notAfter: f[0].NotAfter}
		for _, cert := range f[1:] {
			if cert.NotBefore.After(c.notBefore) {
				c.notBefore = cert.NotBefore
			}
			if cert.NotAfter.Before(c.notAfter) {
				c.notAfter = cert.NotAfter
			}
		}
		chains = append(chains, c)
	}
	if len(chains) == 0 {
		return nil, fault.New(fault.ServerKeyTooWeak, fmt.Errorf("certificate %q has an RSA key of %d bits, which is less than %d",
			weak.Subject, rsaBits(weak), minRSABits))
	}
	return chains, nil
}

// weakest returns the first certificate with an RSA key that is too short, or nil.
func weakest(certs []*x509.Certificate) *x509.Certificate {
	for _, c := range certs {
		if weakRSA(c) > 0 {
			return c
		}
	}
	return nil
}

// rsaBits returns the length of an RSA key, or 0 for other kinds.
func rsaBits(c *x509.Certificate) int {
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok {
		return k.N.BitLen()
	}
	return 0
}

func verifyNames(names []string, leaf *x509.Certificate) error {
	for _, n := range names {
		if matches(n, leaf) {
			return nil
		}
	}
	return fault.New(fault.ServerNameMismatch, fmt.Errorf("the certificate is for %s, none of which is in peer_names", sans(leaf)))
}

// matches reports whether leaf carries name: a URI exactly; a DNS name or IP
// address as for server_name; "*.example.net" for one label before a name of
// two labels or more.
func matches(name string, leaf *x509.Certificate) bool {
	if strings.Contains(name, "://") {
		for _, u := range leaf.URIs {
			if u.String() == name {
				return true
			}
		}
		return false
	}
	suffix, ok := strings.CutPrefix(name, "*.")
	if !ok {
		return !strings.Contains(name, "*") && leaf.VerifyHostname(name) == nil
	}
	suffix = strings.ToLower(strings.TrimSuffix(suffix, "."))
	if strings.Contains(suffix, "*") || !strings.Contains(suffix, ".") {
		return false
	}
	for _, n := range leaf.DNSNames {
		label, rest, ok := strings.Cut(strings.ToLower(strings.TrimSuffix(n, ".")), ".")
		if ok && label != "" && rest == suffix {
			return true
		}
	}
	return false
}

// sans lists the names of a certificate, for the log.
func sans(c *x509.Certificate) string {
	const most = 8
	var all []string
	for _, n := range c.DNSNames {
		all = append(all, fmt.Sprintf("%q", n))
	}
	for _, u := range c.URIs {
		all = append(all, fmt.Sprintf("%q", u))
	}
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	switch {
	case len(all) == 0:
		return "no name"
	case len(all) > most:
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}

func verifyPins(pins [][sha256.Size]byte, chains []chain) error {
	for _, ch := range chains {
		for _, c := range ch.certs {
			sum := Pin(c)
			for i := range pins {
				if pins[i] == sum {
					return nil
				}
			}
		}
	}
	leaf := Pin(chains[0].certs[0])
	return fault.New(fault.ServerPinMismatch, fmt.Errorf("the leaf's key is sha256//%s", base64.StdEncoding.EncodeToString(leaf[:])))
}

// Pin returns what Peer.Pins holds for a certificate's key.
func Pin(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
