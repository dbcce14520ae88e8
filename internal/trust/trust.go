// Package trust holds the roots that we accept upstreams by, and verifies that
// an upstream is who it must be.
package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
	"github.com/mtls-proxy/mtls-proxy/internal/pemfile"
)

// Source names what a bundle is made of. Without any CA it is the system's roots.
type Source struct {
	Name        string
	CA          []string // PEM files
	SystemRoots bool     // the system's roots as well as CA

	Files *files.Reader // reads them, and leaves out Problems that it has returned before; nil: a new one
}

// Bundle is a set of roots. It is safe for concurrent use, and nothing exported
// is written again once Load has returned it.
type Bundle struct {
	Name         string
	Roots        *x509.CertPool
	Certificates []*x509.Certificate // those of Source.CA, each once
	SystemRoots  bool
	Fingerprint  [sha256.Size]byte // over all roots and what was left out: equal means equal
	Warnings     []string          // what will not work, as it looked when loaded

	mu     sync.Mutex // guards chains
	chains map[[sha256.Size]byte][]chain
}

// Load reads what src names. System roots are read afresh each time, so that a
// reload sees what update-ca-certificates changed. An authority that has
// expired is loaded and named in Warnings: the others still serve. The error is
// one *files.Problem, or one per file, joined.
func Load(src Source) (*Bundle, error) {
	b := &Bundle{
		Name:        src.Name,
		Roots:       x509.NewCertPool(),
		SystemRoots: src.SystemRoots || len(src.CA) == 0,
		chains:      map[[sha256.Size]byte][]chain{},
	}
	h := sha256.New()
	part := func(raw []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(raw)))
		h.Write(n[:])
		h.Write(raw)
	}
	var problems []error
	seen := map[string]bool{}
	now := time.Now()
	reader := src.Files
	if reader == nil {
		reader = new(files.Reader)
	}
	for _, name := range src.CA {
		certs, left, err := readCertificates(reader, name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		for _, w := range left {
			part([]byte(w))
		}
		b.Warnings = append(b.Warnings, left...)
		for _, c := range certs {
			if seen[string(c.Raw)] {
				continue
			}
			seen[string(c.Raw)] = true
			part(c.Raw)
			b.Roots.AddCert(c)
			b.Certificates = append(b.Certificates, c)
			b.Warnings = append(b.Warnings, warnings(name, c, now)...)
		}
	}
	if b.SystemRoots {
		certs, err := readSystemRoots()
		if err != nil {
			problems = append(problems, err)
		}
		for _, c := range certs {
			if !seen[string(c.Raw)] {
				seen[string(c.Raw)] = true
				part(c.Raw)
				b.Roots.AddCert(c)
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("trust %q: %w", src.Name, err)
	}
	h.Sum(b.Fingerprint[:0])
	return b, nil
}

func warnings(file string, c *x509.Certificate, now time.Time) []string {
	var all []string
	warn := func(format string, a ...any) {
		all = append(all, fmt.Sprintf("%s: %q ", file, c.Subject)+fmt.Sprintf(format, a...))
	}
	if now.After(c.NotAfter) {
		warn("expired at %s; servers that depend on it are refused", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(c.NotBefore) {
		warn("is not valid before %s; servers that depend on it are refused", c.NotBefore.UTC().Format(time.RFC3339))
	}
	if bits := weakRSA(c); bits > 0 {
		warn("has an RSA key of %d bits; servers that depend on it are refused", bits)
	}
	switch c.PublicKeyAlgorithm {
	case x509.UnknownPublicKeyAlgorithm, x509.DSA:
		warn("has a kind of key that is not supported, %s; servers that depend on it are refused", pemfile.KeyName(c))
	}
	switch {
	case !isAuthority(c):
		warn("is no certificate authority; it is trusted as a server's own certificate only, until that is renewed")
	case !maySign(c):
		warn("may not sign certificates, as its key usage lacks keyCertSign; servers that depend on it are refused")
	}
	return all
}

// isAuthority reports whether c says that it is one. Those of version 1 cannot.
func isAuthority(c *x509.Certificate) bool {
	return c.Version < 3 && !c.BasicConstraintsValid || c.BasicConstraintsValid && c.IsCA
}

// maySign reports whether the key usage of c lets it sign certificates.
func maySign(c *x509.Certificate) bool {
	return c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0
}

// weakRSA returns the length of an RSA key that is too short, or 0.
func weakRSA(c *x509.Certificate) int {
	if n := rsaBits(c); n > 0 && n < minRSABits {
		return n
	}
	return 0
}
