package trust

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// explain says why no chain was found, where that lies with an authority of ours or with a signature. crypto/x509 says in all these cases
// that the authority is unknown, or that something has expired. nil: there is nothing to add.
func (b *Bundle) explain(certs []*x509.Certificate, now time.Time) *fault.Fault {
	child := certs[0]
	for range certs { // from the leaf up, as far as the server's own certificates go
		parent := parentOf(child, certs[1:])
		if f := b.explainIssuer(child, parent != nil, now); f != nil {
			return f
		}
		if parent == nil {
			return nil
		}
		if isWeak(child) {
			return weakSignature(child)
		}
		child = parent
	}
	return nil
}

// explainIssuer judges our authorities that have the name of child's issuer. sent means that the server has sent the issuer itself.
func (b *Bundle) explainIssuer(child *x509.Certificate, sent bool, now time.Time) *fault.Fault {
	var another *x509.Certificate
	for _, ca := range b.Certificates {
		if !bytes.Equal(ca.RawSubject, child.RawIssuer) {
			continue
		}
		switch {
		case !bytes.Equal(ca.Raw, child.Raw) && !signed(ca, child):
			another = ca
		case !bytes.Equal(ca.Raw, child.Raw) && isWeak(child): // a root's own signature does not count
			return weakSignature(child)
		case ca.Version == 3 && (!ca.BasicConstraintsValid || !ca.IsCA) || ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCertSign == 0:
			return fault.New(fault.TrustBundleUnfit, fmt.Errorf("certificate %q of trust bundle %q lacks CA:TRUE or keyCertSign, and %q was issued by it",
				ca.Subject, b.Name, child.Subject)).
				WithDetail("The certificate in our trust bundle that issued the upstream's is not marked as one of an authority.").
				WithFix("Have the authority's certificate made anew with CA:TRUE and keyCertSign, and put that into the ca of the trust bundle that the log names.")
		case now.After(ca.NotAfter):
			return fault.New(fault.TrustBundleUnfit, fmt.Errorf("certificate %q of trust bundle %q expired at %s, and %q was issued by it",
				ca.Subject, b.Name, ca.NotAfter.UTC().Format(time.RFC3339), child.Subject)).
				WithDetail("The authority in our trust bundle that issued the upstream's certificate has expired.").
				WithFix("Put the authority's renewed certificate into the ca of the trust bundle that the log names, and reload; check the clock of this host.")
		case now.Before(ca.NotBefore):
			return fault.New(fault.TrustBundleUnfit, fmt.Errorf("certificate %q of trust bundle %q is not valid before %s, and %q was issued by it",
				ca.Subject, b.Name, ca.NotBefore.UTC().Format(time.RFC3339), child.Subject)).
				WithDetail("The authority in our trust bundle that issued the upstream's certificate is not valid yet.").
				WithFix("Check the clock of this host, or put the authority's certificate that is valid now into the ca of the trust bundle that the log names.")
		default:
			return nil
		}
	}
	if another == nil || sent {
		return nil
	}
	return fault.New(fault.ServerCertificateUntrusted, fmt.Errorf("certificate %q of trust bundle %q has the name of the issuer of %q, and another key",
		another.Subject, b.Name, child.Subject)).
		WithDetail("An authority in our trust bundle has the name of the one that issued the upstream's certificate, but another key: it was made anew.").
		WithFix("Put the authority's new certificate into ca beside the old one, or have the upstream's certificate issued by the authority that is there.")
}

func weakSignature(c *x509.Certificate) *fault.Fault {
	return fault.New(fault.ServerCertificateInvalid, fmt.Errorf("certificate %q is signed with %v", c.Subject, c.SignatureAlgorithm)).
		WithDetail("A certificate in the upstream's chain is signed with an algorithm that is no longer safe, such as SHA-1.").
		WithFix("The upstream's operator must have the certificate that the log names issued anew, signed with SHA-256 or better.")
}

// parentOf returns the certificate that issued child, or nil.
func parentOf(child *x509.Certificate, list []*x509.Certificate) *x509.Certificate {
	for _, c := range list {
		if c != child && bytes.Equal(c.RawSubject, child.RawIssuer) && signed(c, child) {
			return c
		}
	}
	return nil
}

// signed reports whether parent's key has signed child, if only by an algorithm that is not accepted any more.
func signed(parent, child *x509.Certificate) bool {
	err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
	_, insecure := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || insecure
}

// isWeak reports whether a certificate's signature is of a kind that crypto/x509 does not accept in a chain.
func isWeak(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}
