package pemfile

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"path/filepath"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// notPEM says what a file without any block is, and how to convert it.
func notPEM(name string, b []byte) *files.Problem {
	text := bytes.TrimSpace(b)
	from := quote(name)
	certificate, key := quote(beside(name, ".crt")), quote(beside(name, ".key"))
	switch {
	case len(text) == 0:
		return &files.Problem{Fact: "the file is empty", Hint: "write the certificate or key to it, in PEM form"}
	case isPKCS12(b):
		return &files.Problem{
			Fact: "PKCS#12 is not supported in this version",
			Hint: "convert it: openssl pkcs12 -in " + from + " -nokeys -out " + certificate +
				"; openssl pkcs12 -in " + from + " -nocerts -nodes -out " + key,
		}
	case isPKCS7(b):
		return pkcs7(name, "der")
	case bytes.HasPrefix(b, []byte("\xfe\xed\xfe\xed")), bytes.HasPrefix(b, []byte("\xce\xce\xce\xce")):
		store := quote(beside(name, ".p12"))
		return &files.Problem{
			Fact: "this is a Java keystore",
			Hint: "convert it: keytool -importkeystore -srckeystore " + from + " -destkeystore " + store +
				" -deststoretype PKCS12; then openssl pkcs12 -in " + store + " -nokeys -out " + certificate +
				" and openssl pkcs12 -in " + store + " -nocerts -nodes -out " + key,
		}
	case isCertificate(b):
		return &files.Problem{
			Fact: "this is a certificate in DER form, not PEM",
			Hint: "convert it: openssl x509 -inform der -in " + from + " -out " + certificate,
		}
	case isKey(b):
		return &files.Problem{
			Fact: "this is a key in DER form, not PEM",
			Hint: "convert it: openssl pkey -inform der -in " + from + " -out " + key,
		}
	case bytes.HasPrefix(text, []byte("ssh-")), bytes.HasPrefix(text, []byte("ecdsa-sha2-")):
		return &files.Problem{Fact: "this is a public key of OpenSSH", Hint: "name the certificate that an authority issued"}
	case bytes.HasPrefix(text, []byte("PuTTY-User-Key-File")):
		return &files.Problem{Fact: "this is a key of PuTTY", Hint: "name the key that the certificate was requested with"}
	case bytes.HasPrefix(text, []byte("MII")):
		return &files.Problem{
			Fact: "this looks like a certificate or key without its BEGIN and END lines",
			Hint: "put -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- behind it, each on a line of its own",
		}
	case bytes.HasPrefix(text, []byte("<")):
		return &files.Problem{Fact: "this is a web page or XML, not PEM", Hint: "download the certificate itself"}
	}
	return &files.Problem{
		Fact: "the file holds no PEM block",
		Hint: "name a file with a line that reads -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----",
	}
}

func pkcs7(name, form string) *files.Problem {
	return &files.Problem{
		Fact: "this is PKCS#7 (.p7b), not a list of certificates",
		Hint: "convert it: openssl pkcs7 -print_certs -inform " + form + " -in " + quote(name) + " -out " + quote(beside(name, ".crt")),
	}
}

// utf16Command returns what turns UTF-16 into ASCII, when b is that: by its
// byte order mark, or by the BEGIN of a block.
func utf16Command(name string, b []byte) (command string, is bool) {
	from := ""
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		from = "UTF-16"
	case !bytes.Contains(b, []byte("B\x00E\x00G\x00I\x00N\x00 ")):
		return "", false
	case b[0] == 0:
		from = "UTF-16BE"
	default:
		from = "UTF-16LE"
	}
	return "iconv -f " + from + " -t UTF-8 " + quote(name) + " > " + quote(beside(name, ".pem")), true
}

// isPKCS12 recognises the outer SEQUENCE and the version 3 of RFC 7292's PFX.
func isPKCS12(b []byte) bool { return bytes.HasPrefix(within(b), []byte{2, 1, 3}) }

// isPKCS7 recognises signedData of RFC 2315 and RFC 5652.
func isPKCS7(b []byte) bool {
	return bytes.HasPrefix(within(b), []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2})
}

// within returns what follows the head of an outer SEQUENCE, whose length may
// be one that ends with a mark, as BER allows.
func within(b []byte) []byte {
	if len(b) < 2 || b[0] != 0x30 {
		return nil
	}
	head := 2
	if b[1] > 0x80 {
		head += int(b[1] & 0x7f)
	}
	return b[min(head, len(b)):]
}

// isCertificate takes those too that crypto/x509 does not parse.
func isCertificate(b []byte) bool {
	if _, err := x509.ParseCertificate(b); err == nil {
		return true
	}
	_, ok := fieldsOf(b)
	return ok
}

// isKey recognises PKCS#8, plain or encrypted, PKCS#1 and SEC 1.
func isKey(b []byte) bool {
	if _, err := ParseKey(b); err == nil {
		return true
	}
	_, is := keyAlgorithm(b)
	return is || isEncryptedKey(b)
}

func isEncryptedKey(b []byte) bool {
	var e struct {
		Algorithm struct {
			Name       asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}
	rest, err := asn1.Unmarshal(b, &e)
	return err == nil && len(rest) == 0 && len(e.Algorithm.Name) > 6
}

// beside is name with another ending, for what a command writes; never name itself.
func beside(name, ending string) string {
	base := strings.TrimSuffix(name, filepath.Ext(name))
	if base+ending == name {
		return base + ".new" + ending
	}
	return base + ending
}

// quote makes one word of name for a shell.
func quote(name string) string {
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("/._-+,:@%", r):
		default:
			return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
		}
	}
	return name
}
