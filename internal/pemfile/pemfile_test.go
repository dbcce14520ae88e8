package pemfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// made returns a certificate and its key in PKCS#8, both in DER.
func made(t testing.TB, name string) (certificate, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	if certificate, err = x509.CreateCertificate(rand.Reader, c, c, k.Public(), k); err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(k); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestReadFindsEveryBlock(t *testing.T) {
	der, keyDER := made(t, "a")
	cert, key := block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)
	crlf := bytes.ReplaceAll(cert, []byte("\n"), []byte("\r\n"))
	for _, tc := range []struct {
		name               string
		text               []byte
		certificates, keys int
	}{
		{"one", cert, 1, 0},
		{"both, in any order", bytes.Join([][]byte{cert, key, cert}, nil), 2, 1},
		{"the old name", bytes.ReplaceAll(cert, []byte("CERTIFICATE"), []byte("X509 CERTIFICATE")), 1, 0},
		{"no line break at the end", bytes.TrimSpace(cert), 1, 0},
		{"CRLF", crlf, 1, 0},
		{"CR alone", bytes.ReplaceAll(cert, []byte("\n"), []byte("\r")), 1, 0},
		{"blanks behind the lines", bytes.ReplaceAll(cert, []byte("\n"), []byte(" \t\n")), 1, 0},
		{"a byte order mark", append([]byte("\xef\xbb\xbf"), cert...), 1, 0},
		{"two files with byte order marks, joined", bytes.Repeat(append([]byte("\xef\xbb\xbf"), crlf...), 2), 2, 0},
		{"a comment that begins a block", slices.Concat([]byte("# -----BEGIN CERTIFICATE----- is the first line\n"), cert), 1, 0},
		{"a certificate in comments", slices.Concat([]byte("# "+strings.ReplaceAll(string(bytes.TrimSpace(cert)), "\n", "\n# ")+"\n"), cert), 1, 0},
		{"what openssl says about it", slices.Concat([]byte("Bag Attributes\n    friendlyName: -----BEGIN x\nsubject=CN = -----BEGIN CERTIFICATE-----\n"), cert), 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Read("f", tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Certificates) != tc.certificates || len(c.Keys) != tc.keys || len(c.Others) > 0 {
				t.Errorf("%d certificates, %d keys, others %s; want %d and %d", len(c.Certificates), len(c.Keys), Kinds(c.Others), tc.certificates, tc.keys)
			}
			for _, found := range c.Certificates {
				if found.Err != nil || found.Subject != "CN=a" {
					t.Errorf("certificate %q: %v", found.Subject, found.Err)
				}
			}
		})
	}
}

func TestReadTellsTheLine(t *testing.T) {
	der, _ := made(t, "a")
	cert := block("CERTIFICATE", der)
	lines := bytes.Count(cert, []byte("\n"))
	c, err := Read("f", slices.Concat([]byte("# one\r\n\n"), cert, cert))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.Certificates[0].Line, c.Certificates[1].Line; a != 3 || b != 3+lines {
		t.Errorf("lines %d and %d, want 3 and %d", a, b, 3+lines)
	}
}

func TestReadRefuses(t *testing.T) {
	der, keyDER := made(t, "a")
	cert := block("CERTIFICATE", der)
	half := cert[:len(cert)/2]
	p7 := pkcs7Of(t, der)
	for _, tc := range []struct {
		name, file string
		text       []byte
		want       []string
	}{
		{"nothing", "f.crt", nil, []string{"is empty"}},
		{"white space", "f.crt", []byte(" \r\n"), []string{"is empty"}},
		{"text", "f.crt", []byte("hello"), []string{"no PEM block"}},
		{"a page", "f.crt", []byte("<!DOCTYPE html>"), []string{"web page"}},
		{"base64 alone", "f.crt", bytes.Join(bytes.Split(cert, []byte("\n"))[1:5], []byte("\n")), []string{"without its BEGIN and END lines"}},
		{"half a block", "f.crt", slices.Concat(cert, half), []string{fmt.Sprintf("line %d: ", 1+bytes.Count(cert, []byte("\n"))), "does not end"}},
		{"half a block before a whole one", "f.crt", slices.Concat(half, []byte("\n"), cert), []string{"line 1: ", "has no END line before line"}},
		{"a block without its first line", "f.crt", slices.Concat(cert, bytes.SplitAfterN(cert, []byte("\n"), 2)[1]), []string{"BEGIN line is missing"}},
		{"files joined without a line break", "f.crt", slices.Concat(bytes.TrimSpace(cert), cert), []string{"a line of its own", "put a line break between"}},
		{"an indented block", "f.crt", []byte("  " + strings.ReplaceAll(string(cert), "\n", "\n  ")), []string{"line 1: ", "blanks too"}},
		{"not base64", "f.crt", []byte("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"), []string{"line 1: ", "other than base64"}},
		{"UTF-16, little end first", "f.pem", inUTF16(cert, false, true), []string{"UTF-16", "iconv -f UTF-16 -t UTF-8 f.pem > f.new.pem"}},
		{"UTF-16, big end first", "f.crt", inUTF16(cert, true, true), []string{"UTF-16", "iconv -f UTF-16 -t UTF-8 f.crt > f.pem"}},
		{"UTF-16 without a mark", "f.crt", inUTF16(cert, false, false), []string{"iconv -f UTF-16LE "}},
		{"UTF-16 without a mark, big end first", "f.crt", inUTF16(cert, true, false), []string{"iconv -f UTF-16BE "}},
		{"a certificate in DER", "/etc/my ca.cer", der, []string{"DER", "openssl x509 -inform der -in '/etc/my ca.cer' -out '/etc/my ca.crt'"}},
		{"a key in DER", "f.der", keyDER, []string{"DER", "openssl pkey -inform der -in f.der -out f.key"}},
		{"PKCS#7 in DER", "f.p7b", p7, []string{"PKCS#7", "openssl pkcs7 -print_certs -inform der -in f.p7b -out f.crt"}},
		{"PKCS#7", "f.p7b", block("PKCS7", p7), []string{"PKCS#7", "openssl pkcs7 -print_certs -inform pem -in f.p7b -out f.crt"}},
		{"PKCS#7 that is called a certificate", "f.crt", block("CERTIFICATE", p7), []string{"PKCS#7", "-out f.new.crt"}},
		{"PKCS#12", "f.pfx", []byte("\x30\x82\x09\x51\x02\x01\x03\x30\x82"), []string{"PKCS#12 is not supported", "openssl pkcs12 -in f.pfx -nokeys -out f.crt"}},
		{"PKCS#12 without a length", "f.pfx", []byte("\x30\x80\x02\x01\x03\x30\x80"), []string{"PKCS#12 is not supported"}},
		{"a Java keystore", "f.jks", []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"), []string{"Java keystore", "keytool -importkeystore -srckeystore f.jks -destkeystore f.p12"}},
		{"OpenSSL's trust format", "f.pem", block("TRUSTED CERTIFICATE", der), []string{"trust format", "openssl x509 -in f.pem -out f.crt"}},
		{"an OpenSSH public key", "f.pub", []byte("ssh-ed25519 AAAA me\n"), []string{"public key of OpenSSH"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Read(tc.file, tc.text)
			var p *files.Problem
			if !errors.As(err, &p) {
				t.Fatalf("Read = %v, want a Problem", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
}

// pkcs7Of is a signedData that holds nothing but a certificate.
func pkcs7Of(t *testing.T, der []byte) []byte {
	t.Helper()
	signed := sequence16(t, []byte{2, 1, 1}, []byte{0x31, 0}, sequence16(t, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1}), wrapped(t, der), []byte{0x31, 0})
	return sequence16(t, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}, wrapped(t, signed))
}

// sequence16 is a SEQUENCE of parts, tag 16.
func sequence16(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	return marshal(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(parts...)})
}

func wrapped(t *testing.T, der []byte) []byte {
	t.Helper()
	return marshal(t, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inUTF16(b []byte, bigFirst, marked bool) (out []byte) {
	text := string(b)
	if marked {
		text = "\ufeff" + text
	}
	for _, u := range utf16.Encode([]rune(text)) {
		if bigFirst {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	return out
}

// TestKeysAreNamed: a kind of key that cannot be used is called by its name, in
// a certificate and alone.
func TestKeysAreNamed(t *testing.T) {
	der, _ := made(t, "a")
	for name, algorithm := range map[string]pkix.AlgorithmIdentifier{
		"RSASSA-PSS":               {Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}},
		"Ed448":                    {Algorithm: asn1.ObjectIdentifier{1, 3, 101, 113}},
		"ECDSA on brainpoolP256r1": onCurve(t, 1, 3, 36, 3, 3, 2, 8, 1, 1, 7),
		"ECDSA on brainpoolP512r1": onCurve(t, 1, 3, 36, 3, 3, 2, 8, 1, 1, 13),
		"ECDSA on secp256k1":       onCurve(t, 1, 3, 132, 0, 10),
		"ECDSA on the curve 1.2.3": onCurve(t, 1, 2, 3),
	} {
		t.Run(name, func(t *testing.T) {
			info := marshal(t, publicKeyInfo{algorithm, asn1.BitString{Bytes: []byte{4, 1, 2}, BitLength: 24}})
			c, err := Read("f", block("CERTIFICATE", withKey(t, der, info)))
			if err != nil {
				t.Fatal(err)
			}
			found := c.Certificates[0]
			if found.Err == nil {
				found.Err = CheckKey(found.Parsed)
			}
			if found.Err == nil || !strings.HasPrefix(found.Err.Error(), name+" is not a kind of key that TLS can use here") {
				t.Errorf("certificate: %v, want %s", found.Err, name)
			}
			if found.Subject != "CN=a" {
				t.Errorf("subject = %q", found.Subject)
			}
			key := marshal(t, struct {
				Version   int
				Algorithm pkix.AlgorithmIdentifier
				Key       []byte
			}{0, algorithm, []byte("secret")})
			if _, err := ParseKey(key); err == nil || !strings.HasPrefix(err.Error(), name+" is not a kind") {
				t.Errorf("key: %v, want %s", err, name)
			}
		})
	}
}

func onCurve(t *testing.T, id ...int) pkix.AlgorithmIdentifier {
	t.Helper()
	return pkix.AlgorithmIdentifier{Algorithm: ecPublicKey, Parameters: asn1.RawValue{FullBytes: marshal(t, asn1.ObjectIdentifier(id))}}
}

// withKey is the certificate with another key, for which its signature does not hold.
func withKey(t *testing.T, der, info []byte) []byte {
	t.Helper()
	outer, _ := sequence(der)
	tbs, _ := sequence(outer)
	var parts [][]byte
	for rest := tbs; len(rest) > 0; {
		var v asn1.RawValue
		rest, _ = take(rest, &v)
		parts = append(parts, v.FullBytes)
	}
	parts[6] = info // behind version, serial, algorithm, issuer, validity and subject
	var old asn1.RawValue
	rest, _ := take(outer, &old)
	return sequence16(t, sequence16(t, parts...), rest)
}

// TestOpenSSLConvertsWhatIsRefused runs the commands of the hints.
func TestOpenSSLConvertsWhatIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("takes openssl")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatalf("this test takes the real thing: install openssl (apt-get install openssl), or run with -short: %v", err)
	}
	der, keyDER := made(t, "a")
	t.Chdir(t.TempDir())
	write := func(name string, b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cert.pem", block("CERTIFICATE", der))
	write("key.pem", block("PRIVATE KEY", keyDER))
	write("a.der", der)
	write("k.der", keyDER)
	write("b.txt", inUTF16(block("CERTIFICATE", der), false, true))
	run := func(command string) {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	run("openssl crl2pkcs7 -nocrl -certfile cert.pem -out c.p7b && openssl pkcs7 -in c.p7b -outform der -out d.p7b")
	run("openssl x509 -in cert.pem -trustout -out e.txt")
	run("openssl pkey -in key.pem -aes128 -passout pass:x -out f.enc && openssl pkey -in key.pem -outform der -out g.bin")
	for file, converted := range map[string]string{
		"a.der": "a.crt", "k.der": "k.key", "b.txt": "b.pem", "c.p7b": "c.crt", "d.p7b": "d.crt", "e.txt": "e.crt", "g.bin": "g.key",
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Read(file, b)
		var p *files.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: %v, want a Problem", file, err)
			continue
		}
		_, command, ok := strings.Cut(p.Hint, "convert it: ")
		if !ok {
			t.Errorf("%s: the hint names no command: %s", file, p.Hint)
			continue
		}
		run(command)
		if b, err = os.ReadFile(filepath.Base(converted)); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		c, err := Read(converted, b)
		if err != nil || len(c.Certificates)+len(c.Keys) != 1 {
			t.Errorf("%s, converted: %v", file, err)
		}
	}
}

// FuzzRead: nothing makes Read panic; where it takes a file, it has every
// certificate that encoding/pem and crypto/x509 find in it.
func FuzzRead(f *testing.F) {
	der, key := made(f, "a")
	cert := block("CERTIFICATE", der)
	f.Add(cert)
	f.Add(slices.Concat([]byte("# -----BEGIN X-----\n\xef\xbb\xbf"), cert, block("PRIVATE KEY", key), bytes.ReplaceAll(cert, []byte("\n"), []byte(" \r\n"))))
	f.Add(der)
	f.Add(key)
	f.Add(inUTF16(cert, true, true))
	f.Add(block("CERTIFICATE", der[:len(der)-9]))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Read("f", b)
		if err != nil {
			if c != nil {
				t.Error("content and an error")
			}
			return
		}
		if len(c.Certificates)+len(c.Keys)+len(c.Others) == 0 {
			t.Error("neither content nor an error")
		}
		have := map[string]bool{}
		for _, found := range c.Certificates {
			if (found.Parsed == nil) == (found.Err == nil) {
				t.Errorf("certificate %v, error %v", found.Parsed, found.Err)
			}
			if found.Parsed != nil {
				have[string(found.Parsed.Raw)] = true
			}
		}
		for rest := b; ; {
			var p *pem.Block
			if p, rest = pem.Decode(rest); p == nil {
				break
			}
			if p.Type != "CERTIFICATE" {
				continue
			}
			if parsed, err := x509.ParseCertificate(p.Bytes); err == nil && !have[string(parsed.Raw)] {
				t.Errorf("a certificate was missed: %s", parsed.Subject)
			}
		}
	})
}
