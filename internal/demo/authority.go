// Package demo makes a throwaway certificate authority and an upstream that
// demands its client certificates: for `mtls-proxy demo`, and for tests.
package demo

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
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Authority issues certificates. Its key lives in memory only.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	above []*x509.Certificate // the intermediates up to the root, this one first; nil for a root
	root  *x509.Certificate
}

// AuthorityOptions describe an authority. Zero values: ECDSA on P-256, valid
// from an hour ago for a day.
type AuthorityOptions struct {
	Name                string
	RSABits             int
	NotBefore, NotAfter time.Time
}

// NewAuthority makes a root.
func NewAuthority(o AuthorityOptions) (*Authority, error) {
	key, err := newKey(o.RSABits)
	if err != nil {
		return nil, err
	}
	tmpl, err := authorityTemplate(o)
	if err != nil {
		return nil, err
	}
	cert, err := sign(tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key, root: cert}, nil
}

// Intermediate makes an authority below a. What it issues carries it, and all
// others between it and the root, in its chain.
func (a *Authority) Intermediate(o AuthorityOptions) (*Authority, error) {
	key, err := newKey(o.RSABits)
	if err != nil {
		return nil, err
	}
	tmpl, err := authorityTemplate(o)
	if err != nil {
		return nil, err
	}
	cert, err := sign(tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &Authority{
		cert:  cert,
		key:   key,
		above: append([]*x509.Certificate{cert}, a.above...),
		root:  a.root,
	}, nil
}

// Certificate returns a's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Pool returns the root that a's certificates lead to.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// PEM returns the root that a's certificates lead to.
func (a *Authority) PEM() []byte { return certificatePEM(a.root) }

// Write writes PEM to dir/name.crt and returns the path.
func (a *Authority) Write(dir, name string) (string, error) {
	path := filepath.Join(dir, name+".crt")
	return path, writeFile(path, a.PEM(), 0o644)
}

// Request describes a certificate to issue. Zero values: ECDSA on P-256, valid
// from an hour ago for a day, for servers and clients both, a random serial.
type Request struct {
	CommonName          string
	Names               []string // DNS names
	IPs                 []net.IP
	URIs                []string
	Usage               []x509.ExtKeyUsage
	NotBefore, NotAfter time.Time
	RSABits             int
	Serial              *big.Int
	Key                 crypto.Signer // issue for this key instead of a new one
}

// Issued is a certificate with its key.
type Issued struct {
	Leaf  *x509.Certificate
	Chain []*x509.Certificate // Leaf, then the intermediates; not the root
	Key   crypto.Signer
}

// Issue issues what r describes, and does not ask whether that makes sense.
func (a *Authority) Issue(r Request) (*Issued, error) {
	key := r.Key
	if key == nil {
		var err error
		if key, err = newKey(r.RSABits); err != nil {
			return nil, err
		}
	}
	tmpl, err := template(r.CommonName, r.NotBefore, r.NotAfter)
	if err != nil {
		return nil, err
	}
	if r.Serial != nil {
		tmpl.SerialNumber = r.Serial
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = r.Usage
	if r.Usage == nil {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	tmpl.DNSNames, tmpl.IPAddresses = r.Names, r.IPs
	for _, s := range r.URIs {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("issue %q: %w", r.CommonName, err)
		}
		tmpl.URIs = append(tmpl.URIs, u)
	}
	leaf, err := sign(tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue %q: %w", r.CommonName, err)
	}
	return &Issued{Leaf: leaf, Chain: append([]*x509.Certificate{leaf}, a.above...), Key: key}, nil
}

// Server issues a server certificate for names, or for localhost in all its
// forms when there are none.
func (a *Authority) Server(names ...string) (*Issued, error) {
	r := Request{CommonName: "demo upstream", Names: names, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if len(names) == 0 {
		r.Names, r.IPs = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return a.Issue(r)
}

// Client issues a client certificate.
func (a *Authority) Client(commonName string) (*Issued, error) {
	return a.Issue(Request{CommonName: commonName, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// Serial returns the leaf's serial number in lower-case hex.
func (i *Issued) Serial() string { return fmt.Sprintf("%x", i.Leaf.SerialNumber) }

// TLS returns i for a tls.Config.
func (i *Issued) TLS() tls.Certificate {
	c := tls.Certificate{PrivateKey: i.Key, Leaf: i.Leaf}
	for _, cert := range i.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// ChainPEM returns the chain, leaf first.
func (i *Issued) ChainPEM() []byte {
	var b []byte
	for _, c := range i.Chain {
		b = append(b, certificatePEM(c)...)
	}
	return b
}

// KeyPEM returns the key as PKCS#8.
func (i *Issued) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Write writes dir/name.crt and dir/name.key, each in one step: a reader sees
// the old file or the new one.
func (i *Issued) Write(dir, name string) (certificate, key string, err error) {
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	keyPEM, err := i.KeyPEM()
	if err != nil {
		return "", "", err
	}
	if err := writeFile(key, keyPEM, 0o600); err != nil {
		return "", "", err
	}
	if err := writeFile(certificate, i.ChainPEM(), 0o644); err != nil {
		return "", "", err
	}
	return certificate, key, nil
}

func writeFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func newKey(rsaBits int) (crypto.Signer, error) {
	if rsaBits > 0 {
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func template(name string, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	if notBefore.IsZero() {
		notBefore = time.Now().Add(-time.Hour)
	}
	if notAfter.IsZero() {
		notAfter = notBefore.Add(25 * time.Hour)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"mtls-proxy demo"}, CommonName: name},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
	}, nil
}

func authorityTemplate(o AuthorityOptions) (*x509.Certificate, error) {
	name := o.Name
	if name == "" {
		name = "demo authority"
	}
	t, err := template(name, o.NotBefore, o.NotAfter)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t, nil
}

func sign(tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
