// Package identity loads and checks the certificate chain and private key that
// we present to upstreams.
package identity

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// Source names the files of one identity. Both may be the same file.
type Source struct {
	Name        string
	Certificate string // PEM: the leaf and its intermediates
	Key         string // PEM

	Files *files.Reader // reads them, and leaves out Problems that it has returned before; nil: a new one
}

// Identity is a certificate chain with its key. It is never written again once
// Load has returned it.
type Identity struct {
	Name        string
	Certificate tls.Certificate // the whole chain in order, with Leaf set
	NotBefore   time.Time       // the chain is valid from here
	NotAfter    time.Time       // to here, as a whole; a root at its end does not count
	Serial      string          // of the leaf, lower-case hex
	Subject     string
	Issuer      string
	Fingerprint [sha256.Size]byte // over chain, key and what the file gives reason to say: equal means byte-equal
	Warnings    []string          // what will make upstreams refuse it, as it looked when loaded
}

// Load reads and checks an identity. A certificate that has expired, or is not
// valid yet, is loaded all the same and says so in Warnings: an old certificate
// that some upstream still takes is better than none. Files that others may
// write to, and keys that everybody may read, are refused. An error is made of one *files.Problem, or of several joined.
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
		return nil, errors.Join(append(problems, err)...)
	}
	defer clear(keyPEM)
	defer clear(certPEM) // may hold the key as well
	a, err := parse(src, certPEM, keyPEM)
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	leaf := a.chain[0]
	id := &Identity{
		Name:    src.Name,
		Serial:  fmt.Sprintf("%x", leaf.SerialNumber),
		Subject: files.Visible(leaf.Subject.String()),
		Issuer:  files.Visible(leaf.Issuer.String()),
	}
	id.Certificate = tls.Certificate{PrivateKey: a.key, Leaf: leaf}
	for _, c := range slices.Concat(a.chain, a.others) {
		id.Certificate.Certificate = append(id.Certificate.Certificate, c.Raw)
	}
	id.NotBefore, id.NotAfter = validity(a.chain)
	id.Warnings = append(a.remarks, warnings(a.chain, time.Now())...)
	if id.Fingerprint, err = fingerprint(a, a.key); err != nil {
		return nil, &files.Problem{Path: src.Key, Fact: "the key cannot be used", Err: err}
	}
	return id, nil
}

// parse makes sense of both files, and sees to it that they belong together.
func parse(src Source, certPEM, keyPEM []byte) (*arrangement, error) {
	found, err := parseCertificates(src.Certificate, certPEM)
	key, errKey := parseKey(src.Key, keyPEM)
	if err := errors.Join(err, errKey); err != nil {
		return nil, err
	}
	a, err := arrange(src, found, key)
	if err != nil {
		return nil, err
	}
	a.key = key
	return a, nil
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

func fingerprint(a *arrangement, key crypto.Signer) (sum [sha256.Size]byte, err error) {
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
	for _, c := range slices.Concat(a.chain, a.others) {
		part(c.Raw)
	}
	for _, r := range a.remarks {
		part([]byte(r))
	}
	h.Sum(sum[:0])
	return sum, nil
}
