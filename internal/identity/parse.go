package identity

import (
	"crypto"
	"fmt"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/pemfile"
)

// read returns what b, the content of the file called name, holds.
func read(name string, b []byte) (*pemfile.Content, error) {
	content, err := pemfile.Read(name, b)
	if err != nil {
		return nil, of(name, err)
	}
	return content, nil
}

// of makes a Problem of the file called name of one that pemfile found.
func of(name string, err error) *Problem {
	if p, ok := err.(*pemfile.Problem); ok { //nolint:errorlint // it is returned as it is
		return &Problem{File: name, Fact: p.Fact, Hint: p.Hint, Err: p.Err}
	}
	return &Problem{File: name, Fact: "cannot be used", Err: err}
}

// parseCertificates returns all certificates of the file, of which there is one
// at least.
func parseCertificates(name string, b []byte) ([]pemfile.Certificate, error) {
	content, err := read(name, b)
	if err != nil {
		return nil, err
	}
	defer content.Clear()
	for _, c := range content.Certificates {
		if c.Err != nil {
			return nil, &Problem{File: name, Fact: fmt.Sprintf("line %d: the certificate%s cannot be parsed", c.Line, quoted(c.Subject)), Err: c.Err}
		}
	}
	switch {
	case len(content.Certificates) > 0:
		return content.Certificates, nil
	case len(content.Keys) > 0:
		return nil, &Problem{
			File: name, Fact: "the file holds no certificate, only " + pemfile.Kinds(content.Keys),
			Hint: "name the certificate's file here; perhaps certificate and key were exchanged",
		}
	}
	p := &Problem{File: name, Fact: "the file holds no certificate, only " + pemfile.Kinds(content.Others)}
	if strings.Contains(p.Fact, "CERTIFICATE REQUEST") {
		p.Hint = "a certificate request is for the authority; name the certificate that it answered with"
	}
	return nil, p
}

// quoted is a subject behind a noun; none is left out.
func quoted(subject string) string {
	if subject == "" {
		return ""
	}
	return fmt.Sprintf(" %q", subject)
}

// parseKey returns the one private key of the file. Certificates and parameters
// may be beside it.
func parseKey(name string, b []byte) (crypto.Signer, error) {
	content, err := read(name, b)
	if err != nil {
		return nil, err
	}
	defer content.Clear()
	switch len(content.Keys) {
	case 1:
	case 0:
		if len(content.Certificates) > 0 {
			return nil, &Problem{
				File: name, Fact: "the file holds no private key, only certificates",
				Hint: "name the key's file here; perhaps certificate and key were exchanged",
			}
		}
		return nil, &Problem{File: name, Fact: "the file holds no private key, only " + pemfile.Kinds(content.Others)}
	default:
		return nil, &Problem{
			File: name, Fact: fmt.Sprintf("the file holds more than one private key, at lines %d and %d", content.Keys[0].Line, content.Keys[1].Line),
			Hint: "keep the one that belongs to the certificate",
		}
	}
	key, err := content.Keys[0].Signer(name)
	if err != nil {
		return nil, of(name, err)
	}
	if err := pemfile.CheckPublicKey(key.Public()); err != nil {
		return nil, &Problem{File: name, Fact: "the key cannot be used", Err: err}
	}
	return key, nil
}
