package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// maxFileBytes bounds what is read of a file; a chain takes a few KiB.
const maxFileBytes = 1 << 20

// readPair reads certificate and key. A renewal may replace both while we read:
// the certificate is read again after the key, and both again if it changed.
// Whether the two belong together is checked later. problems are files that others may write to, and
// keys that everybody may read.
func readPair(src Source) (cert, key []byte, problems []error, err error) {
	r := src.Files
	if r == nil {
		r = new(files.Reader)
	}
	read := func(name string) (*files.File, error) {
		f, err := r.Read(name, maxFileBytes)
		if err != nil {
			return nil, unreadable(name, err)
		}
		for _, p := range f.Problems {
			problems = append(problems, &Problem{File: p.Path, Fact: p.Fact, Hint: p.Hint, Err: p.Err})
		}
		return f, nil
	}
	for range 3 {
		c, err := read(src.Certificate)
		if err != nil {
			return nil, nil, nil, err
		}
		k, err := read(src.Key)
		if err != nil {
			return nil, nil, nil, err
		}
		again, err := read(src.Certificate)
		if err != nil {
			return nil, nil, nil, err
		}
		if !bytes.Equal(c.Data, again.Data) {
			continue
		}
		clear(again.Data) // may hold the key as well
		if again.Public() && (src.Certificate == src.Key || bytes.Contains(c.Data, []byte("PRIVATE KEY-----"))) {
			problems = append(problems, publicKey(src.Certificate, again))
		}
		if k.Public() && src.Key != src.Certificate {
			problems = append(problems, publicKey(src.Key, k))
		}
		return c.Data, k.Data, problems, nil
	}
	return nil, nil, nil, &Problem{File: src.Certificate, Fact: "the file changes while it is read", Hint: "try again when the renewal is done"}
}

func publicKey(name string, f *files.File) error {
	return &Problem{
		File: name,
		Fact: fmt.Sprintf("everybody on this host may read the private key (mode %04o)", f.Mode.Perm()),
		Hint: "take that away: chmod o-rwx " + name,
	}
}

func unreadable(name string, err error) error {
	p := &Problem{File: name, Fact: err.Error()}
	if found, ok := errors.AsType[*files.Problem](err); ok {
		p.Fact, p.Hint, p.Err = found.Fact, found.Hint, found.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "let the group that the service runs as read it, for example: chgrp mtls-proxy FILE && chmod 640 FILE"
	case errors.Is(err, fs.ErrNotExist):
		p.Hint = "put the file there, or correct the path"
	case p.Err == nil && p.Hint == "":
		p.Hint = "name a file that holds only the certificate chain or the key, in PEM form"
	}
	return p
}

// decodePEM returns the PEM blocks of b. encoding/pem passes over what it
// cannot decode; here every block that begins must be whole.
func decodePEM(name string, b []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := b; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	begun := bytes.Count(b, []byte("-----BEGIN "))
	switch {
	case len(blocks) != begun:
		return nil, &Problem{
			File: name,
			Fact: fmt.Sprintf("%d PEM blocks begin in the file, but only %d are whole", begun, len(blocks)),
			Hint: "check that the file was copied completely, and that each BEGIN and END line stands on a line of its own",
		}
	case len(blocks) > 0:
		return blocks, nil
	default:
		return nil, notPEM(name, b)
	}
}

// notPEM says what a file without any PEM block is.
func notPEM(name string, b []byte) error {
	p := &Problem{File: name}
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		p.Fact, p.Hint = "the file is empty", "write the certificate or key to it, in PEM form"
	case isPKCS12(b):
		p.Fact = "PKCS#12 is not supported in this version"
		p.Hint = "convert it: openssl pkcs12 -in FILE -clcerts -nokeys -out client.crt; openssl pkcs12 -in FILE -nocerts -nodes -out client.key"
	default:
		if _, err := x509.ParseCertificate(b); err == nil {
			p.Fact, p.Hint = "this is a certificate in DER form, not PEM", "convert it: openssl x509 -inform der -in FILE -out client.crt"
		} else if _, err := parseDERKey(b); err == nil {
			p.Fact, p.Hint = "this is a key in DER form, not PEM", "convert it: openssl pkey -inform der -in FILE -out client.key"
		} else {
			p.Fact, p.Hint = "the file holds no PEM block", "name a file with a line that reads -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----"
		}
	}
	return p
}

// isPKCS12 recognises the outer SEQUENCE and the version 3 of RFC 7292's PFX.
func isPKCS12(b []byte) bool {
	if len(b) < 8 || b[0] != 0x30 {
		return false
	}
	n := 2
	if b[1] >= 0x80 {
		n += int(b[1] & 0x7f)
	}
	return len(b) >= n+3 && bytes.Equal(b[n:n+3], []byte{2, 1, 3})
}

func parseChain(name string, b []byte) ([]*x509.Certificate, error) {
	blocks, err := decodePEM(name, b)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	var others []string
	for _, block := range blocks {
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, &Problem{File: name, Fact: fmt.Sprintf("certificate %d cannot be parsed", len(chain)+1), Err: err}
			}
			chain = append(chain, c)
		case "TRUSTED CERTIFICATE":
			return nil, &Problem{File: name, Fact: "this is a certificate in OpenSSL's own trust format", Hint: "convert it: openssl x509 -in FILE -out client.crt"}
		default:
			others = append(others, block.Type)
		}
	}
	if len(chain) == 0 {
		p := &Problem{File: name, Fact: "the file holds no certificate, only " + strings.Join(others, ", ")}
		switch {
		case strings.Contains(p.Fact, "PRIVATE KEY"):
			p.Hint = "name the certificate's file here; perhaps certificate and key were exchanged"
		case strings.Contains(p.Fact, "CERTIFICATE REQUEST"):
			p.Hint = "a certificate request is for the authority; name the certificate that it answered with"
		}
		return nil, p
	}
	if err := checkUsable(chain[0].PublicKey); err != nil {
		return nil, &Problem{File: name, Fact: "the certificate's key cannot be used", Err: err}
	}
	return chain, nil
}

func parseKey(name string, b []byte) (crypto.Signer, error) {
	blocks, err := decodePEM(name, b)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, block := range blocks {
			clear(block.Bytes)
		}
	}()
	var key crypto.Signer
	var others []string
	for _, block := range blocks {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			others = append(others, block.Type) // certificates of a file that holds both, EC PARAMETERS
			continue
		}
		if key != nil {
			return nil, &Problem{File: name, Fact: "the file holds more than one private key", Hint: "keep the one that belongs to the certificate"}
		}
		if key, err = parseKeyBlock(name, block); err != nil {
			return nil, err
		}
	}
	if key == nil {
		p := &Problem{File: name, Fact: "the file holds no private key, only " + strings.Join(others, ", ")}
		if strings.Contains(p.Fact, "CERTIFICATE") {
			p.Hint = "name the key's file here; perhaps certificate and key were exchanged"
		}
		return nil, p
	}
	if err := checkUsable(key.Public()); err != nil {
		return nil, &Problem{File: name, Fact: "the key cannot be used", Err: err}
	}
	return key, nil
}

func parseKeyBlock(name string, block *pem.Block) (crypto.Signer, error) {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, &Problem{
			File: name, Fact: "encrypted keys are not supported in this version",
			Hint: "decrypt it: openssl pkey -in FILE -out client.key",
		}
	case block.Type == "OPENSSH PRIVATE KEY":
		return nil, &Problem{File: name, Fact: "this is an OpenSSH key", Hint: "name the key that the certificate was requested with"}
	}
	key, err := parseDERKey(block.Bytes)
	if err != nil {
		return nil, &Problem{
			File: name, Fact: "the key in the block " + block.Type + " cannot be parsed", Err: err,
			Hint: "look at it: openssl pkey -in FILE -noout -check",
		}
	}
	return key, nil
}

// parseDERKey takes PKCS#8, PKCS#1 and SEC 1 whatever the block is called:
// some tools name them wrongly. Its error says nothing of what was in der.
func parseDERKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
		return nil, fmt.Errorf("a key of type %T cannot sign", k)
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("it is neither PKCS#8 nor PKCS#1 nor SEC 1")
}
