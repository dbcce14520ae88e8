package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

func authority(t testing.TB, o demo.AuthorityOptions) *demo.Authority {
	t.Helper()
	a, err := demo.NewAuthority(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t testing.TB, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, bytes.Join(parts, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, parts ...[]byte) *Bundle {
	t.Helper()
	b, err := Load(Source{Name: "test", CA: []string{write(t, parts...)}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoadTakesEachCertificateOnce(t *testing.T) {
	a, b := authority(t, demo.AuthorityOptions{Name: "a"}), authority(t, demo.AuthorityOptions{Name: "b"})
	first := write(t, []byte("# a comment\n"), a.PEM(), []byte("\r\n"), b.PEM(), a.PEM())
	second := write(t, b.PEM())
	bundle, err := Load(Source{Name: "x", CA: []string{first, second}})
	if err != nil {
		t.Fatal(err)
	}
	if len(bundle.Certificates) != 2 || bundle.SystemRoots || len(bundle.Warnings) > 0 {
		t.Errorf("%d certificates, system roots %v, warnings %q", len(bundle.Certificates), bundle.SystemRoots, bundle.Warnings)
	}
	if bundle.Fingerprint != load(t, a.PEM(), b.PEM()).Fingerprint {
		t.Error("the same roots have two fingerprints")
	}
	if bundle.Fingerprint == load(t, a.PEM()).Fingerprint {
		t.Error("other roots have the same fingerprint")
	}
}

func TestLoadRefuses(t *testing.T) {
	a := authority(t, demo.AuthorityOptions{})
	client, err := a.Client("c")
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("x")}) }
	for _, tc := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"an empty file", nil, "the file is empty"},
		{"white space", []byte(" \n"), "the file is empty"},
		{"no PEM", []byte("hello"), "holds no PEM block"},
		{"a private key", append(a.PEM(), key...), "holds a private key"},
		{"a cut off certificate", append(a.PEM(), a.PEM()[:200]...), "that begins here does not end"},
		{"a broken certificate", block("CERTIFICATE"), "line 1: the certificate cannot be parsed, and there is no other"},
		{"DER", a.Certificate().Raw, "openssl x509 -inform der"},
		{"OpenSSL's trust format", block("TRUSTED CERTIFICATE"), "convert it"},
		{"a revocation list", block("X509 CRL"), "not supported in this version"},
		{"something else", block("PGP MESSAGE"), `a block "PGP MESSAGE"`},
		{"a huge file", bytes.Repeat([]byte("x"), maxFileBytes+1), "larger than 4 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.content)
			_, err := Load(Source{Name: "bank", CA: []string{path}})
			if err == nil {
				t.Fatal("it was loaded")
			}
			for _, want := range []string{`trust "bank": `, path, tc.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
		})
	}
}

func TestLoadNamesEveryBadFile(t *testing.T) {
	_, err := Load(Source{Name: "x", CA: []string{"/nonexistent/a.crt", t.TempDir(), write(t)}})
	if err == nil {
		t.Fatal("it was loaded")
	}
	for _, want := range []string{"/nonexistent/a.crt: cannot be read: no such file or directory", ": is a folder", "is empty"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

// TestOneBadCertificateCostsTheOthersNothing: what crypto/x509 does not parse is
// left out with a warning that says where it is; the rest serves.
func TestOneBadCertificateCostsTheOthersNothing(t *testing.T) {
	good, odd := authority(t, demo.AuthorityOptions{Name: "good"}), authority(t, demo.AuthorityOptions{Name: "Odd CA"})
	negative := bytes.Clone(odd.Certificate().Raw)
	serial := bytes.Index(negative, odd.Certificate().SerialNumber.Bytes())
	if negative[serial-1] == 0 {
		serial-- // where the number starts with a bit that is set
	}
	negative[serial] |= 0x80 // the first bit of the number is its sign
	bad := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: negative})
	path := write(t, []byte("# roots\n"), bad, good.PEM())
	b, err := Load(Source{Name: "test", CA: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], path+`: line 2: the certificate "CN=Odd CA,O=mtls-proxy demo" is left out`) {
		t.Errorf("warnings = %q, want one with the line and the subject", b.Warnings)
	}
	if err := b.Verify(&Peer{ServerName: "api.example.net"}, presented(issue(t, good, demo.Request{}))); err != nil {
		t.Errorf("a server of the good authority: %v", err)
	}
	if b.Fingerprint == load(t, good.PEM()).Fingerprint {
		t.Error("the mended bundle has the fingerprint of the one before, so that its warning would stay")
	}
	if _, err := Load(Source{Name: "test", CA: []string{write(t, bad)}}); err == nil || !strings.Contains(err.Error(), `line 1: the certificate "CN=Odd CA`) {
		t.Errorf("a bundle without a usable certificate: %v, want a refusal with line and subject", err)
	}
}

func TestLoadWarnsAboutWhatWillNotServe(t *testing.T) {
	now := time.Now()
	leaf, err := authority(t, demo.AuthorityOptions{}).Server()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		pem  []byte
		want string
	}{
		"expired":       {authority(t, demo.AuthorityOptions{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}).PEM(), "expired at"},
		"not yet valid": {authority(t, demo.AuthorityOptions{NotBefore: now.Add(time.Hour)}).PEM(), "is not valid before"},
		"short key":     {authority(t, demo.AuthorityOptions{RSABits: 1024}).PEM(), "RSA key of 1024 bits"},
		"a server's":    {leaf.ChainPEM(), "no certificate authority"},
	} {
		b := load(t, tc.pem)
		if len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], tc.want) {
			t.Errorf("%s: warnings = %q, want one with %q", name, b.Warnings, tc.want)
		}
	}
}

func TestSystemRootsAreReadAfresh(t *testing.T) {
	a, b := authority(t, demo.AuthorityOptions{}), authority(t, demo.AuthorityOptions{})
	file := write(t, a.PEM())
	empty := t.TempDir()
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", empty)
	accepts := func(bundle *Bundle, a *demo.Authority) bool {
		server, err := a.Server()
		if err != nil {
			t.Fatal(err)
		}
		_, err = server.Leaf.Verify(x509.VerifyOptions{Roots: bundle.Roots})
		return err == nil
	}
	before, err := Load(Source{Name: "system"})
	if err != nil {
		t.Fatal(err)
	}
	if !before.SystemRoots || !accepts(before, a) || accepts(before, b) {
		t.Errorf("system roots %v, accepts a: %v, b: %v", before.SystemRoots, accepts(before, a), accepts(before, b))
	}
	if err := os.WriteFile(file, b.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	after, err := Load(Source{Name: "system"})
	if err != nil {
		t.Fatal(err)
	}
	if accepts(after, a) || !accepts(after, b) || after.Fingerprint == before.Fingerprint {
		t.Error("a change of the system's roots was not seen")
	}
	both, err := Load(Source{Name: "both", CA: []string{write(t, a.PEM())}, SystemRoots: true})
	if err != nil {
		t.Fatal(err)
	}
	if !accepts(both, a) || !accepts(both, b) {
		t.Error("ca and system_roots together do not accept both")
	}
	// A folder with a file and the hash of it that OpenSSL looks for.
	if err := os.WriteFile(filepath.Join(empty, "a.pem"), a.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.pem", filepath.Join(empty, "0123abcd.0")); err != nil {
		t.Fatal(err)
	}
	dir, err := Load(Source{Name: "folder"})
	if err != nil {
		t.Fatal(err)
	}
	if !accepts(dir, a) {
		t.Error("a root in SSL_CERT_DIR was not read")
	}
	t.Setenv("SSL_CERT_FILE", "/nonexistent")
	t.Setenv("SSL_CERT_DIR", "/nonexistent")
	if _, err := Load(Source{Name: "none"}); err == nil || !strings.Contains(err.Error(), "install the package ca-certificates") {
		t.Errorf("without any system root: %v", err)
	}
}
