package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// party is a name with a key, which several certificates may be for.
type party struct {
	name string
	key  crypto.Signer
}

func newParty(t *testing.T, name string) party {
	t.Helper()
	return party{name, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)}
}

// certify issues a certificate for p, which ends at notAfter.
func (p party) certify(t *testing.T, subject party, ca bool, notAfter time.Time) *x509.Certificate {
	t.Helper()
	serial := must(rand.Int(rand.Reader, big.NewInt(1<<60)))(t)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: subject.name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		BasicConstraintsValid: true, IsCA: ca,
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: p.name}}
	der := must(x509.CreateCertificate(rand.Reader, c, issuer, subject.key.Public(), p.key))(t)
	return must(x509.ParseCertificate(der))(t)
}

// TestLoadPutsTheChainInOrder: whatever the order of the file, the leaf is sent
// first and each certificate behind the one that it issued, once.
func TestLoadPutsTheChainInOrder(t *testing.T) {
	later := time.Now().Add(24 * time.Hour)
	oldRoot, newRoot, middle, low, client := newParty(t, "old root"), newParty(t, "new root"), newParty(t, "middle"), newParty(t, "low"), newParty(t, "client")
	root := newRoot.certify(t, newRoot, true, later)
	byNew, byOld := newRoot.certify(t, middle, true, later), oldRoot.certify(t, middle, true, later)
	expired := oldRoot.certify(t, middle, true, time.Now().Add(-time.Hour))
	below := middle.certify(t, low, true, later)
	leaf, deep := middle.certify(t, client, false, later), low.certify(t, client, false, later)
	key := block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(client.key))(t))

	for _, tc := range []struct {
		name       string
		file, sent []*x509.Certificate
		warning    string // the whole of them; "": none
	}{
		{"in order", []*x509.Certificate{leaf, byNew, root}, []*x509.Certificate{leaf, byNew, root}, ""},
		{"the leaf twice", []*x509.Certificate{leaf, leaf, byNew}, []*x509.Certificate{leaf, byNew},
			`line {2}: the certificate "CN=client" is the same as that of line {1}; take this one out`},
		{"an intermediate twice", []*x509.Certificate{leaf, byNew, byNew}, []*x509.Certificate{leaf, byNew},
			`is the same as that of line {2}; take this one out`},
		{"a cross-signed twin", []*x509.Certificate{leaf, byNew, byOld}, []*x509.Certificate{leaf, byNew, byOld},
			`"CN=middle" is there twice, issued by "CN=old root" here and by "CN=new root" at line {2}; take this one out, unless an upstream trusts only "CN=old root"`},
		{"a cross-signed twin before the root", []*x509.Certificate{leaf, byNew, byOld, root}, []*x509.Certificate{leaf, byNew, root, byOld},
			`take this one out`},
		{"an expired twin first", []*x509.Certificate{leaf, expired, byNew}, []*x509.Certificate{leaf, byNew, expired},
			`line {2}: "CN=middle" is there twice, issued by "CN=old root" here`},
		{"the leaf last", []*x509.Certificate{byNew, leaf}, []*x509.Certificate{leaf, byNew},
			`line {2}: the certificate that belongs to the key is not the first in the file; put it first`},
		{"out of order", []*x509.Certificate{deep, byNew, below}, []*x509.Certificate{deep, below, byNew},
			`the certificate "CN=middle" stands before the one that it issued, at line {3}; put it behind`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var file, sent [][]byte
			line, warning := 1, tc.warning // with the line of certificate N for {N}
			for i, c := range tc.file {
				file = append(file, block("CERTIFICATE", c.Raw))
				warning = strings.ReplaceAll(warning, fmt.Sprintf("{%d}", i+1), strconv.Itoa(line))
				line += bytes.Count(file[i], []byte("\n"))
			}
			for _, c := range tc.sent {
				sent = append(sent, c.Raw)
			}
			id, err := Load(Source{Name: "x", Certificate: write(t, "c.crt", 0o644, file...), Key: write(t, "c.key", 0o600, key)})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(id.Certificate.Certificate, sent, slices.Equal) {
				t.Errorf("%d certificates are sent, which differ from the %d wanted, or in order", len(id.Certificate.Certificate), len(sent))
			}
			if got := strings.Join(id.Warnings, "\n"); (got == "") != (warning == "") || !strings.Contains(got, warning) || len(id.Warnings) > 1 {
				t.Errorf("warnings = %q, want one with %q", id.Warnings, warning)
			}
			if !id.NotAfter.Equal(leaf.NotAfter) {
				t.Errorf("the chain ends at %v, want %v", id.NotAfter, leaf.NotAfter)
			}
		})
	}
}

// TestAFileThatWasMendedIsAnother: what a file gave reason to say is forgotten
// once it was mended, though the chain is the same.
func TestAFileThatWasMendedIsAnother(t *testing.T) {
	root, client := newParty(t, "root"), newParty(t, "client")
	leaf := block("CERTIFICATE", root.certify(t, client, false, time.Now().Add(time.Hour)).Raw)
	key := write(t, "c.key", 0o600, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(client.key))(t)))
	load := func(parts ...[]byte) *Identity {
		return must(Load(Source{Name: "x", Certificate: write(t, "c.crt", 0o644, parts...), Key: key}))(t)
	}
	if load(leaf).Fingerprint == load(leaf, leaf).Fingerprint {
		t.Error("the mended file has the fingerprint of the one before")
	}
}
