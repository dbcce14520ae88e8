package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

func authority(t *testing.T) *demo.Authority {
	t.Helper()
	a, err := demo.NewAuthority(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *demo.Authority, r demo.Request) *demo.Issued {
	t.Helper()
	if r.CommonName == "" {
		r.CommonName = "client"
	}
	i, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func keyPEM(t *testing.T, i *demo.Issued) []byte {
	t.Helper()
	b, err := i.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, name string, mode os.FileMode, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, bytes.Join(parts, nil), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestLoadDescribesTheChain(t *testing.T) {
	root := authority(t)
	soon := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	middle := must(root.Intermediate(demo.AuthorityOptions{Name: "middle", NotAfter: soon}))(t)
	issued := issue(t, middle, demo.Request{CommonName: "ledger"})
	cert, key := must2(issued.Write(t.TempDir(), "c"))(t)
	id, err := Load(Source{Name: "ledger", Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if len(id.Certificate.Certificate) != 2 || id.Certificate.Leaf == nil || id.Certificate.PrivateKey == nil {
		t.Errorf("certificate = %d in the chain, leaf %v", len(id.Certificate.Certificate), id.Certificate.Leaf)
	}
	if id.Serial != issued.Serial() || !strings.Contains(id.Subject, "CN=ledger") || !strings.Contains(id.Issuer, "CN=middle") {
		t.Errorf("serial %s, subject %s, issuer %s", id.Serial, id.Subject, id.Issuer)
	}
	if !id.NotAfter.Equal(soon) {
		t.Errorf("NotAfter = %v, want the intermediate's %v", id.NotAfter, soon)
	}
	if len(id.Warnings) > 0 {
		t.Errorf("warnings: %q", id.Warnings)
	}
}

func must2[A, B any](a A, b B, err error) func(testing.TB) (A, B) {
	return func(t testing.TB) (A, B) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
}

func TestLoadTakesEveryKindOfKey(t *testing.T) {
	a := authority(t)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	ecKey := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(k crypto.Signer) []byte { return block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(k))(t)) }
	sec1 := must(x509.MarshalECPrivateKey(ecKey))(t)
	for name, tc := range map[string]struct {
		key crypto.Signer
		pem []byte
	}{
		"RSA in PKCS#8":            {rsaKey, pkcs8(rsaKey)},
		"RSA in PKCS#1":            {rsaKey, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		"ECDSA in PKCS#8":          {ecKey, pkcs8(ecKey)},
		"ECDSA in SEC 1":           {ecKey, block("EC PRIVATE KEY", sec1)},
		"ECDSA with EC PARAMETERS": {ecKey, append(block("EC PARAMETERS", []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}), block("EC PRIVATE KEY", sec1)...)},
		"Ed25519":                  {edKey, pkcs8(edKey)},
		"CRLF and text around":     {ecKey, append([]byte("some text\r\n"), bytes.ReplaceAll(pkcs8(ecKey), []byte("\n"), []byte("\r\n"))...)},
	} {
		t.Run(name, func(t *testing.T) {
			issued := issue(t, a, demo.Request{Key: tc.key})
			src := Source{Name: "x", Certificate: write(t, "c.crt", 0o644, issued.ChainPEM()), Key: write(t, "c.key", 0o600, tc.pem)}
			if _, err := Load(src); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoadTakesOneFileForBoth(t *testing.T) {
	issued := issue(t, authority(t), demo.Request{})
	file := write(t, "both.pem", 0o600, keyPEM(t, issued), issued.ChainPEM())
	if _, err := Load(Source{Name: "x", Certificate: file, Key: file}); err != nil {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	a := authority(t)
	good, other := issue(t, a, demo.Request{}), issue(t, a, demo.Request{})
	root := a.PEM()
	certPEM, key := good.ChainPEM(), keyPEM(t, good)
	der := func(c *x509.Certificate) []byte { return block("CERTIFICATE", c.Raw) }
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t)
	keyDER := must(x509.MarshalPKCS8PrivateKey(good.Key))(t)

	for _, tc := range []struct {
		name      string
		cert, key []byte
		want      []string
	}{
		{"a key of another certificate", certPEM, keyPEM(t, other), []string{"c.crt", "c.key", "public keys differ", "replace both"}},
		{"a certificate that does not belong", append(slices.Clone(certPEM), der(other.Leaf)...), key, []string{"line ", "is neither the identity's", "take it out"}},
		{"certificate and key exchanged", key, certPEM, []string{"holds no certificate", "exchanged"}},
		{"a certificate for the key", certPEM, certPEM, []string{"c.key", "holds no private key", "exchanged"}},
		{"an encrypted PKCS#8 key", certPEM, block("ENCRYPTED PRIVATE KEY", keyDER), []string{"not supported in this version", "openssl pkey -in"}},
		{"an encrypted PKCS#1 key", certPEM, []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"), []string{"not supported in this version"}},
		{"an OpenSSH key", certPEM, block("OPENSSH PRIVATE KEY", keyDER), []string{"OpenSSH"}},
		{"two keys", certPEM, slices.Concat(key, key), []string{"more than one private key"}},
		{"PKCS#12", []byte("\x30\x82\x09\x51\x02\x01\x03\x30\x82"), key, []string{"PKCS#12 is not supported in this version", "openssl pkcs12"}},
		{"a certificate in DER", good.Leaf.Raw, key, []string{"DER", "openssl x509 -inform der"}},
		{"a key in DER", certPEM, keyDER, []string{"DER", "openssl pkey -inform der"}},
		{"an empty certificate", nil, key, []string{"c.crt", "is empty"}},
		{"no PEM", []byte("hello"), key, []string{"no PEM block"}},
		{"a half-written certificate", certPEM[:len(certPEM)/2], key, []string{`line 1: the block "CERTIFICATE" that begins here does not end`, "copied completely"}},
		{"a half-written chain", append(slices.Clone(certPEM), root[:len(root)-30]...), key, []string{`the block "CERTIFICATE" that begins here does not end`}},
		{"blocks without a line break between", append(bytes.TrimSpace(slices.Clone(certPEM)), root...), key, []string{"does not stand on a line of its own", "put a line break between them"}},
		{"a broken certificate", block("CERTIFICATE", []byte("nonsense")), key, []string{"line 1: the certificate cannot be parsed"}},
		{"a broken key", certPEM, block("PRIVATE KEY", []byte("nonsense")), []string{"cannot be parsed", "neither PKCS#8"}},
		{"a request", block("CERTIFICATE REQUEST", []byte("x")), key, []string{"answered with"}},
		{"a curve that TLS has not", issue(t, a, demo.Request{Key: p224}).ChainPEM(), key, []string{"P-224", "use RSA"}},
		{"a huge file", bytes.Repeat([]byte("x"), maxFileBytes+1), key, []string{"larger than 1 MiB"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load(Source{Name: "bank", Certificate: write(t, "c.crt", 0o644, tc.cert), Key: write(t, "c.key", 0o600, tc.key)})
			if err == nil {
				t.Fatal("it was loaded")
			}
			for _, want := range append(tc.want, `identity "bank": `) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			if problem := new(files.Problem); !errors.As(err, &problem) || problem.Path == "" {
				t.Errorf("no *files.Problem with a path in %#v", err)
			}
			for _, secret := range strings.Split(string(key), "\n")[1:3] {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error quotes the key: %v", err)
				}
			}
		})
	}
}

func TestLoadRefusesWhatCannotBeRead(t *testing.T) {
	issued := issue(t, authority(t), demo.Request{})
	cert, key := must2(issued.Write(t.TempDir(), "c"))(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		src  Source
		want string
	}{
		"missing":  {Source{Name: "x", Certificate: cert + ".no", Key: key}, "no such file or directory; put the file there"},
		"a folder": {Source{Name: "x", Certificate: filepath.Dir(cert), Key: key}, "is a folder"},
		"a FIFO":   {Source{Name: "x", Certificate: cert, Key: fifo}, "not a regular file"},
	} {
		if _, err := Load(tc.src); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestLoadWarns(t *testing.T) {
	a := authority(t)
	now := time.Now()
	for name, tc := range map[string]struct {
		request demo.Request
		want    string
	}{
		"expired":        {demo.Request{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, "expired at"},
		"not yet valid":  {demo.Request{NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}, "is not valid before"},
		"for servers":    {demo.Request{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "lacks clientAuth"},
		"short RSA key":  {demo.Request{RSABits: 1024}, "RSA key of 1024 bits"},
		"nothing amiss":  {demo.Request{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ""},
		"for everything": {demo.Request{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cert, key := must2(issue(t, a, tc.request).Write(t.TempDir(), "c"))(t)
			id, err := Load(Source{Name: "x", Certificate: cert, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(id.Warnings, "\n")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("warnings = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFingerprintFollowsTheBytes(t *testing.T) {
	a := authority(t)
	first := issue(t, a, demo.Request{})
	renewed := issue(t, a, demo.Request{Key: first.Key})
	load := func(i *demo.Issued) [32]byte {
		cert, key := must2(i.Write(t.TempDir(), "c"))(t)
		return must(Load(Source{Name: "x", Certificate: cert, Key: key}))(t).Fingerprint
	}
	sum := load(first)
	if again := load(first); again != sum {
		t.Error("the same identity has two fingerprints")
	}
	if load(renewed) == sum {
		t.Error("a renewed certificate has the old one's fingerprint")
	}
}

// TestLoadDuringARenewal: whatever Load returns while the files are being
// replaced, certificate and key belong together.
func TestLoadDuringARenewal(t *testing.T) {
	a := authority(t)
	dir := t.TempDir()
	src := Source{Name: "x", Certificate: filepath.Join(dir, "c.crt"), Key: filepath.Join(dir, "c.key")}
	generations := []*demo.Issued{issue(t, a, demo.Request{}), issue(t, a, demo.Request{})}
	must2(generations[0].Write(dir, "c"))(t)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
				if _, _, err := generations[i%2].Write(dir, "c"); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	loaded := 0
	for range 200 {
		id, err := Load(src)
		if err != nil {
			continue
		}
		loaded++
		pub := id.Certificate.PrivateKey.(crypto.Signer).Public().(*ecdsa.PublicKey)
		if !pub.Equal(id.Certificate.Leaf.PublicKey) {
			t.Fatal("certificate and key do not belong together")
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of 200 loads succeeded", loaded)
}

func TestOpenSSLKeysLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes openssl")
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("this test takes the real thing: install openssl (apt-get install openssl), or run with -short: %v", err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key")
	for _, args := range [][]string{
		{"-newkey", "rsa:2048"},
		{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
	} {
		cmd := exec.Command(openssl, append([]string{"req", "-x509", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out", cert}, args...)...)
		cmd.Stderr = io.Discard
		if err := cmd.Run(); err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(Source{Name: "x", Certificate: cert, Key: key}); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// FuzzPEM: no content makes parsing panic, and what is parsed holds something.
func FuzzPEM(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("\x30\x82\x09\x51\x02\x01\x03"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		chain, err := parseCertificates("f", b)
		if (err == nil) != (len(chain) > 0) {
			t.Errorf("chain of %d, error %v", len(chain), err)
		}
		key, err := parseKey("f", b)
		if (err == nil) != (key != nil) {
			t.Errorf("key %T, error %v", key, err)
		}
	})
}

// A mistake in one file hides none in the other.
func TestLoadTellsOfBothFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key")
	told := func(t *testing.T) {
		t.Helper()
		_, err := Load(Source{Name: "bank", Certificate: cert, Key: key})
		if err == nil || !strings.Contains(err.Error(), cert) || !strings.Contains(err.Error(), key) {
			t.Errorf("Load: %v; want a word on each file", err)
		}
	}
	t.Run("missing", told)
	for _, name := range []string{cert, key} {
		if err := os.WriteFile(name, []byte("nothing\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("not PEM", told)
}

// A subject may have any character; status and check print it on terminals.
func TestSubjectsAreEscaped(t *testing.T) {
	cert, key := must2(issue(t, authority(t), demo.Request{CommonName: "client\x1b[2J\nmore"}).Write(t.TempDir(), "c"))(t)
	id, err := Load(Source{Name: "bank", Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(id.Subject, `client\x1b[2J\nmore`) {
		t.Errorf("Subject = %q; want its control characters escaped", id.Subject)
	}
}
