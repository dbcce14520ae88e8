// Package identity loads and checks the certificate chain and private key that
// we present to upstreams.
package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// Source names the files of one identity. Both may be the same file.
type Source struct {
	Name        string
	Certificate string // PEM, the leaf first, then its intermediates
	Key         string // PEM

	Files *files.Reader // reads them, and leaves out Problems that it has returned before; nil: a new one
}

// Identity is a certificate chain with its key. It is never written again once
// Load has returned it.
type Identity struct {
	Name        string
	Certificate tls.Certificate // the whole chain, with Leaf set
	NotBefore   time.Time       // the chain is valid from here
	NotAfter    time.Time       // to here, as a whole; a root at its end does not count
	Serial      string          // of the leaf, lower-case hex
	Subject     string
	Issuer      string
	Fingerprint [sha256.Size]byte // over chain and key: equal means byte-equal
	Warnings    []string          // what will make upstreams refuse it, as it looked when loaded
}

// Problem is what is wrong with one file, and what to do about it.
type Problem struct {
	File string
	Fact string
	Hint string
	Err  error // the cause, when there is one beyond Fact
}

func (p *Problem) Error() string {
	s := p.File + ": " + p.Fact
	if p.Err != nil {
		s += ": " + p.Err.Error()
	}
	if p.Hint != "" {
		s += "; " + p.Hint
	}
	return s
}

func (p *Problem) Unwrap() error { return p.Err }

// Load reads and checks an identity. A certificate that has expired, or is not
// valid yet, is loaded all the same and says so in Warnings: an old certificate
// that some upstream still takes is better than none. Files that others may
// write to, and keys that everybody may read, are refused. An error is made of one Problem, or of several joined.
func Load(src Source) (*Identity, error) {
	id, err := load(src)
	if err != nil {
		return nil, fmt.Errorf("identity %q: %w", src.Name, err)
	}
	return id, nil
}

func load(src Source) (*Identity, error) {
	certPEM, keyPEM, problems, err := readPair(src)
	if err != nil {
		return nil, err
	}
	defer clear(keyPEM)
	defer clear(certPEM) // may hold the key as well
	chain, key, err := parse(src, certPEM, keyPEM)
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	leaf := chain[0]
	id := &Identity{
		Name:    src.Name,
		Serial:  fmt.Sprintf("%x", leaf.SerialNumber),
		Subject: leaf.Subject.String(),
		Issuer:  leaf.Issuer.String(),
	}
	id.Certificate = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		id.Certificate.Certificate = append(id.Certificate.Certificate, c.Raw)
	}
	id.NotBefore, id.NotAfter = validity(chain)
	id.Warnings = warnings(chain, time.Now())
	if id.Fingerprint, err = fingerprint(chain, key); err != nil {
		return nil, &Problem{File: src.Key, Fact: "the key cannot be used", Err: err}
	}
	return id, nil
}

// parse makes sense of both files, and sees to it that they belong together.
func parse(src Source, certPEM, keyPEM []byte) (chain []*x509.Certificate, key crypto.Signer, err error) {
	if chain, err = parseChain(src.Certificate, certPEM); err != nil {
		return nil, nil, err
	}
	if key, err = parseKey(src.Key, keyPEM); err != nil {
		return nil, nil, err
	}
	if err := matchKey(src, chain, key); err != nil {
		return nil, nil, err
	}
	return chain, key, checkOrder(src.Certificate, chain)
}

// matchKey refuses a key that is not the leaf's.
func matchKey(src Source, chain []*x509.Certificate, key crypto.Signer) error {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return &Problem{File: src.Key, Fact: fmt.Sprintf("keys of type %T cannot be used", key)}
	}
	if pub.Equal(chain[0].PublicKey) {
		return nil
	}
	for i, c := range chain[1:] {
		if pub.Equal(c.PublicKey) {
			return &Problem{
				File: src.Certificate,
				Fact: fmt.Sprintf("the certificate that belongs to the key is number %d of %d in the file", i+2, len(chain)),
				Hint: "put it first, then the certificate that issued it, and so on",
			}
		}
	}
	return &Problem{
		File: src.Certificate,
		Fact: fmt.Sprintf("the certificate does not belong to the key %s: the public keys differ (certificate: %s, key: %s)",
			src.Key, describeKey(chain[0].PublicKey), describeKey(key.Public())),
		Hint: renewal(src),
	}
}

// renewal says what to do about a certificate and a key that do not belong together.
func renewal(src Source) string {
	for _, name := range []string{src.Certificate, src.Key} {
		if dir := os.Getenv("CREDENTIALS_DIRECTORY"); strings.HasPrefix(name, "/run/credentials/") || dir != "" && strings.HasPrefix(name, dir+"/") {
			return "systemd reads credentials when it starts the service: after a renewal, systemctl restart mtls-proxy"
		}
	}
	return "use the key that the certificate was requested with; after a renewal, replace both files"
}

// checkOrder refuses a chain in which a certificate was not issued by the next.
func checkOrder(file string, chain []*x509.Certificate) error {
	for i, c := range chain[:len(chain)-1] {
		if issued(chain[i+1], c) {
			continue
		}
		for j := i + 2; j < len(chain); j++ {
			if issued(chain[j], c) {
				return &Problem{
					File: file,
					Fact: fmt.Sprintf("the chain is out of order: certificate %d was issued by number %d, not by number %d", i+1, j+1, i+2),
					Hint: "put the leaf first, then the certificate that issued it, and so on",
				}
			}
		}
		return &Problem{
			File: file,
			Fact: fmt.Sprintf("certificate %d (%q) did not issue certificate %d, whose issuer is %q", i+2, chain[i+1].Subject, i+1, c.Issuer),
			Hint: "keep the leaf and the certificates between it and its root, in that order, and nothing else",
		}
	}
	return nil
}

func issued(parent, child *x509.Certificate) bool {
	if !bytes.Equal(parent.RawSubject, child.RawIssuer) {
		return false
	}
	err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
	// Whether an algorithm is still good enough is for the upstream to judge.
	_, insecure := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || insecure
}

func isRoot(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func validity(chain []*x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore, notAfter = chain[0].NotBefore, chain[0].NotAfter
	for _, c := range chain[1:] {
		if isRoot(c) {
			continue // upstreams use their own copy
		}
		if c.NotBefore.After(notBefore) {
			notBefore = c.NotBefore
		}
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	return notBefore, notAfter
}

func warnings(chain []*x509.Certificate, now time.Time) []string {
	var all []string
	warn := func(format string, a ...any) { all = append(all, fmt.Sprintf(format, a...)) }
	for i, c := range chain {
		if i > 0 && isRoot(c) {
			continue
		}
		which := "the certificate"
		if i > 0 {
			which = fmt.Sprintf("intermediate certificate %d (%q)", i+1, c.Subject)
		}
		if now.After(c.NotAfter) {
			warn("%s expired at %s", which, c.NotAfter.UTC().Format(time.RFC3339))
		}
		if now.Before(c.NotBefore) {
			warn("%s is not valid before %s", which, c.NotBefore.UTC().Format(time.RFC3339))
		}
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
			warn("%s has an RSA key of %d bits; many servers refuse less than 2048", which, k.N.BitLen())
		}
		switch c.SignatureAlgorithm {
		case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
			warn("%s is signed with %s, which many servers refuse", which, c.SignatureAlgorithm)
		}
	}
	leaf := chain[0]
	if !allowsClientAuth(leaf) {
		warn("the certificate is not meant for clients: its extended key usage lacks clientAuth")
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		warn("the certificate is not meant for TLS 1.3: its key usage lacks digitalSignature")
	}
	if leaf.IsCA && !isRoot(leaf) {
		warn("the certificate is that of a certificate authority")
	}
	return all
}

func allowsClientAuth(c *x509.Certificate) bool {
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0
}

// checkUsable refuses keys that crypto/tls cannot sign with.
func checkUsable(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey, ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
	}
	return fmt.Errorf("%s is not a kind of key that TLS can use; use RSA, ECDSA on P-256, P-384 or P-521, or Ed25519", describeKey(pub))
}

func describeKey(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return fmt.Sprintf("%T", pub)
	}
}

func fingerprint(chain []*x509.Certificate, key crypto.Signer) (sum [sha256.Size]byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return sum, err
	}
	defer clear(der)
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	part(der)
	for _, c := range chain {
		part(c.Raw)
	}
	h.Sum(sum[:0])
	return sum, nil
}
