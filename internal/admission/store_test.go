package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	for _, good := range []string{
		"redis://127.0.0.1:6379/0",
		"redis://127.0.0.1",
		"redis://[::1]:6379",
		"redis://cache.internal/",
		"redis://:pw@cache.internal:6380/15",
		"redis://user:p%40ss%2Fw@cache.internal",
		"rediss://user@cache.internal:6380/1",
		"unix:///run/redis/redis.sock",
		"unix://user:pw@/run/redis/redis.sock?db=3",
	} {
		if _, err := parseURL(good); err != nil {
			t.Errorf("parseURL(%q) = %v; want it accepted", good, err)
		}
	}
	for _, bad := range []string{
		"",
		"sekret",
		"sekret:sekret",
		"sekret:sekret@host",
		"http://sekret@host",
		"redis:127.0.0.1:6379",
		"redis://",
		"redis:///0",
		"redis://:sekret@:6379",
		"redis://user:sek/ret@host",
		"redis://user:1/sekret@host",
		"redis://user:sekret@host:port",
		"redis://user:sekret%zz@host",
		"redis://user:sekret@ho st",
		"redis://user:#sekret@host",
		"redis://host/sekret",
		"redis://host/-1",
		"redis://host/0/1",
		"redis://host/99999999",
		"redis://host/0?skip_verify=sekret",
		"redis://host/0#sekret",
		"unix://host/run/redis.sock",
		"unix:run/redis.sock",
		"unix://",
		"unix:///run/redis.sock?password=sekret",
		"unix:///run/redis.sock?db=1&db=2",
		"unix:///run/redis.sock?db=sekret",
	} {
		_, err := parseURL(bad)
		if err == nil {
			t.Errorf("parseURL(%q) = nil; want it refused", bad)
			continue
		}
		for _, part := range []string{"sekret", "sek", "ret@"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("parseURL(%q) = %v; want nothing of it quoted", bad, err)
			}
		}
	}
}

func FuzzParseURLQuotesNothing(f *testing.F) {
	f.Add("redis", "user:", "host:6379/0")
	f.Add("unix", "", "/run/redis.sock?db=%")
	const password = "Zq7~Zq7"
	f.Fuzz(func(t *testing.T, scheme, before, after string) {
		if _, err := parseURL(scheme + "://" + before + password + "@" + after); err != nil && strings.Contains(err.Error(), "Zq7") {
			t.Errorf("the password is quoted: %v", err)
		}
	})
}

// certify writes a certificate for 127.0.0.1 that stands for itself.
func certify(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "store"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{cert: certPEM, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return cert, key, roots
}

// freePort returns a port on which nobody listens. Somebody may by the time it is used.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

func TestSharedOverTLS(t *testing.T) {
	cert, key, roots := certify(t)
	port := freePort(t)
	st := startStore(t, "--bind", "127.0.0.1", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	o := SharedOptions{URL: "rediss://127.0.0.1:" + port + "/2", RootCAs: roots, PerSecond: 1e-3, Burst: 10, Failure: Deny}
	s := newTestShared(t, o)
	if n := take(t, s, "alice"); n != 10 {
		t.Errorf("%d admitted; want 10", n)
	}
	if err := st.client().ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	if n := take(t, s, "bob"); n != 10 {
		t.Errorf("%d admitted after the store had closed the connection; want 10", n)
	}
	o.RootCAs = x509.NewCertPool()
	stranger := newTestShared(t, o)
	if _, ok, away := stranger.Admit([]byte("alice")); ok || !away {
		t.Errorf("Admit = %v, away %v with a store that nobody vouches for; want it away", ok, away)
	}
}
