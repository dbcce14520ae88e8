package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

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

// maxFileBytes bounds what is read of a file. All roots of a system take some 200 KiB.
const maxFileBytes = 4 << 20

func unreadable(name string, err error) error {
	p := &Problem{File: name, Fact: err.Error()}
	if found, ok := errors.AsType[*files.Problem](err); ok {
		p.Fact, p.Hint, p.Err = found.Fact, found.Hint, found.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "certificates are no secret: chmod a+r " + name
	case errors.Is(err, fs.ErrNotExist):
		p.Hint = "put the file there, or correct the path"
	case p.Fact == "is a folder":
		p.Hint = "list the files in it: ca = [\"a.crt\", \"b.crt\"]"
	case p.Err == nil && p.Hint == "":
		p.Hint = "name a file that holds only certificates, in PEM form"
	}
	return p
}

// readCertificates reads a bundle. Every block in it must be whole and a
// certificate: what is passed over silently is missed later.
func readCertificates(r *files.Reader, name string) ([]*x509.Certificate, error) {
	f, err := r.Read(name, maxFileBytes)
	if err != nil {
		return nil, unreadable(name, err)
	}
	if len(f.Problems) > 0 {
		var all []error
		for _, p := range f.Problems {
			all = append(all, &Problem{File: p.Path, Fact: p.Fact, Hint: p.Hint, Err: p.Err})
		}
		return nil, errors.Join(all...)
	}
	b := f.Data
	begun := bytes.Count(b, []byte("-----BEGIN "))
	var certs []*x509.Certificate
	blocks := 0
	for rest := b; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		blocks++
		switch {
		case block.Type == "CERTIFICATE", block.Type == "X509 CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, &Problem{File: name, Fact: fmt.Sprintf("certificate %d cannot be parsed", len(certs)+1), Err: err}
			}
			certs = append(certs, c)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, &Problem{
				File: name, Fact: "the file holds a private key, which a trust bundle has no use for",
				Hint: "name the certificate of the authority, and keep its key away from this host",
			}
		case block.Type == "TRUSTED CERTIFICATE":
			return nil, &Problem{File: name, Fact: "this is a certificate in OpenSSL's own trust format", Hint: "convert it: openssl x509 -in FILE -out ca.crt"}
		case block.Type == "X509 CRL":
			return nil, &Problem{File: name, Fact: "the file holds a revocation list", Hint: "keep only the certificates; revocation lists are not supported in this version"}
		default:
			return nil, &Problem{File: name, Fact: fmt.Sprintf("the file holds a block %q", block.Type), Hint: "keep only the certificates"}
		}
	}
	switch {
	case blocks != begun:
		return nil, &Problem{
			File: name, Fact: fmt.Sprintf("%d PEM blocks begin in the file, but only %d are whole", begun, blocks),
			Hint: "check that the file was copied completely, and that each BEGIN and END line stands on a line of its own",
		}
	case len(certs) > 0:
		return certs, nil
	case len(bytes.TrimSpace(b)) == 0:
		return nil, &Problem{File: name, Fact: "the file is empty", Hint: "write the certificate of the authority to it, in PEM form"}
	}
	if _, err := x509.ParseCertificate(b); err == nil {
		return nil, &Problem{File: name, Fact: "this is a certificate in DER form, not PEM", Hint: "convert it: openssl x509 -inform der -in FILE -out ca.crt"}
	}
	return nil, &Problem{File: name, Fact: "the file holds no certificate", Hint: "name a file with a line that reads -----BEGIN CERTIFICATE-----"}
}

// readSystemRoots reads the roots where Linux distributions keep them. crypto/x509
// reads the same places, but once in the life of a process. SSL_CERT_FILE and
// SSL_CERT_DIR take the places' place, as with OpenSSL.
func readSystemRoots() ([]*x509.Certificate, error) {
	places := []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // newer Fedora, RHEL
		"/etc/ssl/cert.pem",                                 // Alpine, BSD, macOS
	}
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		places = []string{f}
	}
	dirs := []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
	if d := os.Getenv("SSL_CERT_DIR"); d != "" {
		dirs = strings.Split(d, ":")
	}
	var certs []*x509.Certificate
	var r files.Reader // who may change the system's own is not for us to judge
	for _, place := range places {
		if f, err := r.Read(place, maxFileBytes); err == nil {
			certs = appendRoots(certs, f.Data)
			break
		}
	}
	for _, d := range dirs {
		entries, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := filepath.Join(d, e.Name())
			if e.Type()&fs.ModeSymlink != 0 {
				if target, err := os.Readlink(name); err == nil && !strings.Contains(target, "/") {
					continue // OpenSSL's hash of a file that is listed itself
				}
			}
			if f, err := r.Read(name, maxFileBytes); err == nil {
				certs = appendRoots(certs, f.Data)
			}
		}
	}
	if len(certs) == 0 {
		return nil, &Problem{
			File: places[0], Fact: "this system has no root certificates",
			Hint: "install the package ca-certificates, or set ca in the trust bundle",
		}
	}
	return certs, nil
}

// appendRoots passes over what is no certificate: the system's roots are not
// for us to correct.
func appendRoots(certs []*x509.Certificate, b []byte) []*x509.Certificate {
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			return certs
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, c)
		}
	}
}
