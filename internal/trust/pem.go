package trust

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// maxFileBytes bounds what is read of a file. All roots of a system take some 200 KiB.
const maxFileBytes = 4 << 20

// withHint says what to do where files does not know it.
func withHint(err error) error {
	p, ok := errors.AsType[*files.Problem](err)
	if !ok {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "certificates are no secret: chmod a+r " + p.Path
	case errors.Is(err, fs.ErrNotExist):
		p.Hint = "put the file there, or correct the path"
	case p.Fact == "is a folder":
		p.Hint = "list the files in it: ca = [\"a.crt\", \"b.crt\"]"
	case p.Err == nil && p.Hint == "":
		p.Hint = "name a file that holds only certificates, in PEM form"
	}
	return p
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
	var r files.Reader // Problems with the owners of the system's files are ignored
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
		return nil, &files.Problem{
			Path: places[0], Fact: "this system has no root certificates",
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
