package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
	"github.com/mtls-proxy/mtls-proxy/internal/pemfile"
)

// readCertificates reads a bundle. What is in it besides certificates is
// refused: what is passed over silently is missed later. A certificate that
// cannot be parsed is left out with a warning, as long as another is there:
// one of a hundred authorities is no reason to refuse the servers of the rest.
func readCertificates(r *files.Reader, name string) (certs []*x509.Certificate, warnings []string, err error) {
	f, err := r.Read(name, maxFileBytes)
	if err != nil {
		return nil, nil, withHint(err)
	}
	if len(f.Problems) > 0 {
		var all []error
		for _, p := range f.Problems {
			all = append(all, p)
		}
		return nil, nil, errors.Join(all...)
	}
	content, err := pemfile.Read(name, f.Data)
	if err != nil {
		return nil, nil, err
	}
	defer content.Clear()
	if len(content.Keys) > 0 {
		return nil, nil, &files.Problem{
			Path: name, Fact: fmt.Sprintf("line %d: the file holds a private key, which a trust bundle has no use for", content.Keys[0].Line),
			Hint: "name the certificate of the authority, and keep its key away from this host",
		}
	}
	if len(content.Others) > 0 {
		return nil, nil, unwanted(name, &content.Others[0])
	}
	var bad *pemfile.Certificate
	for i := range content.Certificates {
		switch c := &content.Certificates[i]; {
		case c.Err == nil:
			certs = append(certs, c.Parsed)
		default:
			if bad == nil {
				bad = c
			}
			warnings = append(warnings, fmt.Sprintf("%s: line %d: %s is left out, as it cannot be parsed: %v; servers that depend on it are refused",
				name, c.Line, c, c.Err))
		}
	}
	if len(certs) == 0 {
		return nil, nil, &files.Problem{Path: name, Fact: fmt.Sprintf("line %d: %s cannot be parsed, and there is no other", bad.Line, bad), Err: bad.Err}
	}
	return certs, warnings, nil
}

func unwanted(name string, b *pemfile.Block) error {
	p := &files.Problem{Path: name, Fact: fmt.Sprintf("line %d: the file holds a block %q", b.Line, b.Type), Hint: "keep only the certificates"}
	switch {
	case b.Type == "X509 CRL":
		p.Fact = fmt.Sprintf("line %d: the file holds a revocation list", b.Line)
		p.Hint = "keep only the certificates; revocation lists are not supported in this version"
	case strings.HasSuffix(b.Type, "CERTIFICATE REQUEST"):
		p.Hint = "a certificate request is for the authority; name the authority's own certificate"
	}
	return p
}
