package identity

import (
	"crypto"
	"fmt"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
	"github.com/mtls-proxy/mtls-proxy/internal/pemfile"
)

// parseCertificates returns all certificates of the file, of which there is one
// at least.
func parseCertificates(name string, b []byte) ([]pemfile.Certificate, error) {
	content, err := pemfile.Read(name, b)
	if err != nil {
		return nil, err
	}
	defer content.Clear()
	for _, c := range content.Certificates {
		if c.Err != nil {
			return nil, &files.Problem{Path: name, Fact: fmt.Sprintf("line %d: %s cannot be parsed", c.Line, &c), Err: c.Err}
		}
	}
	switch {
	case len(content.Certificates) > 0:
		return content.Certificates, nil
	case len(content.Keys) > 0:
		return nil, &files.Problem{
			Path: name, Fact: "the file holds no certificate, only " + pemfile.Kinds(content.Keys),
			Hint: "name the certificate's file here; perhaps certificate and key were exchanged",
		}
	}
	p := &files.Problem{Path: name, Fact: "the file holds no certificate, only " + pemfile.Kinds(content.Others)}
	if strings.Contains(p.Fact, "CERTIFICATE REQUEST") {
		p.Hint = "a certificate request is for the authority; name the certificate that it answered with"
	}
	return nil, p
}

// parseKey returns the one private key of the file. Certificates and parameters
// may be beside it.
func parseKey(name string, b []byte) (crypto.Signer, error) {
	content, err := pemfile.Read(name, b)
	if err != nil {
		return nil, err
	}
	defer content.Clear()
	switch len(content.Keys) {
	case 1:
	case 0:
		if len(content.Certificates) > 0 {
			return nil, &files.Problem{
				Path: name, Fact: "the file holds no private key, only certificates",
				Hint: "name the key's file here; perhaps certificate and key were exchanged",
			}
		}
		return nil, &files.Problem{Path: name, Fact: "the file holds no private key, only " + pemfile.Kinds(content.Others)}
	default:
		return nil, &files.Problem{
			Path: name, Fact: fmt.Sprintf("the file holds more than one private key, at lines %d and %d", content.Keys[0].Line, content.Keys[1].Line),
			Hint: "keep the one that belongs to the certificate",
		}
	}
	key, err := content.Keys[0].Signer(name)
	if err != nil {
		return nil, err
	}
	if err := pemfile.CheckPublicKey(key.Public()); err != nil {
		return nil, &files.Problem{Path: name, Fact: "the key cannot be used", Err: err}
	}
	return key, nil
}
