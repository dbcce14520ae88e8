package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

// certificate makes one of name, signed by parent's key; nil: by its own.
func certificate(t *testing.T, change func(*x509.Certificate), name string, key crypto.Signer, parent *x509.Certificate, by crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"api.example.net"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withSHA1 is c, signed by key as crypto/x509 signs no more.
func withSHA1(t *testing.T, c *x509.Certificate, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	// sha256WithRSAEncryption and sha1WithRSAEncryption differ in one byte, inside and outside.
	const sha256WithRSA, sha1WithRSA = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"
	tbs := []byte(strings.Replace(string(outer.TBS.FullBytes), sha256WithRSA, sha1WithRSA, 1))
	sum := sha1.Sum(tbs)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	outer.TBS = asn1.RawValue{FullBytes: tbs}
	outer.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestAFailedVerificationIsExplained(t *testing.T) {
	ec := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rootKey, otherKey, leafKey := ec(), ec(), ec()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	authority := func(change func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.DNSNames, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil, nil
			if change != nil {
				change(c)
			}
		}
	}
	root := certificate(t, authority(nil), "root", rootKey, nil, nil)
	expired := certificate(t, authority(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}), "root", rootKey, nil, nil)
	early := certificate(t, authority(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "root", rootKey, nil, nil)
	noAuthority := certificate(t, func(c *x509.Certificate) { c.BasicConstraintsValid = true }, "root", rootKey, nil, nil)
	anew := certificate(t, authority(nil), "root", otherKey, nil, nil)
	rsaRoot := certificate(t, authority(nil), "root", rsaKey, nil, nil)
	leaf := certificate(t, nil, "leaf", leafKey, root, rootKey)
	old := withSHA1(t, certificate(t, nil, "leaf", leafKey, rsaRoot, rsaKey), rsaKey)
	middle := withSHA1(t, certificate(t, authority(nil), "middle", otherKey, rsaRoot, rsaKey), rsaKey)
	below := certificate(t, nil, "leaf", leafKey, middle, otherKey)

	for name, c := range map[string]struct {
		bundle *x509.Certificate
		server []*x509.Certificate
		token  fault.Token
		err    string // in what the log says
		fix    string
	}{
		"our authority has expired":        {expired, []*x509.Certificate{leaf}, fault.TrustBundleUnfit, `"CN=root" of trust bundle "test" expired at`, "renewed certificate"},
		"our authority is not valid yet":   {early, []*x509.Certificate{leaf}, fault.TrustBundleUnfit, "is not valid before", "clock"},
		"our authority is none":            {noAuthority, []*x509.Certificate{leaf}, fault.TrustBundleUnfit, "lacks CA:TRUE", "CA:TRUE"},
		"our authority was made anew":      {anew, []*x509.Certificate{leaf}, fault.ServerCertificateUntrusted, "another key", "beside the old one"},
		"SHA-1 in the leaf":                {rsaRoot, []*x509.Certificate{old}, fault.ServerCertificateInvalid, `"CN=leaf" is signed with SHA1-RSA`, "SHA-256"},
		"SHA-1 in an intermediate":         {rsaRoot, []*x509.Certificate{below, middle}, fault.ServerCertificateInvalid, `"CN=middle" is signed with SHA1-RSA`, "SHA-256"},
		"an authority that we do not have": {rsaRoot, []*x509.Certificate{certificate(t, nil, "leaf", leafKey, certificate(t, authority(nil), "far", otherKey, nil, nil), otherKey)}, fault.ServerCertificateUntrusted, "unknown authority", "Add the issuing authority"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := load(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.bundle.Raw}))
			f := fault.Classify(fault.PhaseHandshake, bundle.Verify(&Peer{ServerName: "api.example.net"}, tls.ConnectionState{PeerCertificates: c.server}))
			if f == nil || f.Token != c.token || !strings.Contains(f.Error(), c.err) || !strings.Contains(f.ToDo(), c.fix) {
				t.Fatalf("Verify: %v, to do: %s; want %s, %q, %q", f, f.ToDo(), c.token, c.err, c.fix)
			}
		})
	}
}
