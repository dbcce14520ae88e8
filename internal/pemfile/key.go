package pemfile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// ParseKey takes PKCS#8, PKCS#1 and SEC 1 whatever the block is called: some
// tools name them wrongly. Its error says nothing of what was in der but the
// kind of key.
func ParseKey(der []byte) (crypto.Signer, error) {
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
	if algorithm, ok := keyAlgorithm(der); ok {
		if name := algorithmName(algorithm); name != "" {
			return nil, unusable(name)
		}
	}
	return nil, errors.New("it is neither PKCS#8 nor PKCS#1 nor SEC 1")
}

// KeyName says what kind of key c has.
func KeyName(c *x509.Certificate) string {
	if c.PublicKey != nil {
		return PublicKeyName(c.PublicKey)
	}
	var info publicKeyInfo
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return "a malformed key"
	}
	return info.name()
}

// PublicKeyName says what kind of key pub is.
func PublicKeyName(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return strings.TrimSuffix(strings.ToUpper(strings.TrimPrefix(fmt.Sprintf("%T", pub), "*")), ".PUBLICKEY") // "DSA"
	}
}

// unusable is why a key that is fit for other ends is not for TLS.
func unusable(name string) error {
	return fmt.Errorf("%s is not a kind of key that TLS can use here; use RSA, ECDSA on P-256, P-384 or P-521, or Ed25519", name)
}

// CheckKey refuses a certificate's key that crypto/tls cannot use. The reason
// names the kind.
func CheckKey(c *x509.Certificate) error {
	if usable(c.PublicKey) {
		return nil
	}
	return unusable(KeyName(c))
}

// CheckPublicKey is CheckKey for a key alone.
func CheckPublicKey(pub crypto.PublicKey) error {
	if usable(pub) {
		return nil
	}
	return unusable(PublicKeyName(pub))
}

func usable(pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case *rsa.PublicKey, ed25519.PublicKey:
		return true
	case *ecdsa.PublicKey:
		switch k.Curve.Params().Name {
		case "P-256", "P-384", "P-521":
			return true
		}
	}
	return false
}

// keyAlgorithm returns the algorithm of a private key in PKCS#8 or SEC 1.
func keyAlgorithm(der []byte) (a pkix.AlgorithmIdentifier, ok bool) {
	var pkcs8 struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	if _, err := asn1.Unmarshal(der, &pkcs8); err == nil {
		clear(pkcs8.Key) // a copy
		return pkcs8.Algorithm, true
	}
	var sec1 struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
	defer func() { clear(sec1.Key) }()
	if _, err := asn1.Unmarshal(der, &sec1); err != nil || sec1.Version != 1 {
		return a, false
	}
	curve, err := asn1.Marshal(sec1.Curve)
	if err != nil {
		return a, false
	}
	return pkix.AlgorithmIdentifier{Algorithm: ecPublicKey, Parameters: asn1.RawValue{FullBytes: curve}}, true
}

// publicKeyInfo is a SubjectPublicKeyInfo.
type publicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

func (i *publicKeyInfo) name() string {
	if name := algorithmName(i.Algorithm); name != "" {
		return name
	}
	return "a key of the algorithm " + i.Algorithm.Algorithm.String()
}

// knownCurve reports whether crypto/x509 knows the curve of an EC key.
func (i *publicKeyInfo) knownCurve() bool {
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(i.Algorithm.Parameters.FullBytes, &curve); err != nil {
		return false
	}
	switch curveName(curve) {
	case "P-224", "P-256", "P-384", "P-521":
		return true
	}
	return false
}

var ecPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}

// algorithmName returns "" for what has no name here.
func algorithmName(a pkix.AlgorithmIdentifier) string {
	if a.Algorithm.Equal(ecPublicKey) {
		var curve asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &curve); err != nil {
			return "ECDSA on a curve without a name"
		}
		return "ECDSA on " + curveName(curve)
	}
	switch a.Algorithm.String() {
	case "1.2.840.113549.1.1.1":
		return "RSA"
	case "1.2.840.113549.1.1.7":
		return "RSAES-OAEP"
	case "1.2.840.113549.1.1.10":
		return "RSASSA-PSS"
	case "1.2.840.10040.4.1":
		return "DSA"
	case "1.2.840.10046.2.1", "1.2.840.113549.1.3.1":
		return "Diffie-Hellman"
	case "1.3.101.110":
		return "X25519"
	case "1.3.101.111":
		return "X448"
	case "1.3.101.113":
		return "Ed448"
	case "1.2.643.7.1.1.1.1", "1.2.643.7.1.1.1.2":
		return "GOST R 34.10"
	case "2.16.840.1.101.3.4.3.17", "2.16.840.1.101.3.4.3.18", "2.16.840.1.101.3.4.3.19":
		return "ML-DSA"
	}
	return ""
}

func curveName(curve asn1.ObjectIdentifier) string {
	switch id := curve.String(); id {
	case "1.2.840.10045.3.1.1":
		return "P-192"
	case "1.3.132.0.33":
		return "P-224"
	case "1.2.840.10045.3.1.7":
		return "P-256"
	case "1.3.132.0.34":
		return "P-384"
	case "1.3.132.0.35":
		return "P-521"
	case "1.3.132.0.10":
		return "secp256k1"
	case "1.3.36.3.3.2.8.1.1.7":
		return "brainpoolP256r1"
	case "1.3.36.3.3.2.8.1.1.11":
		return "brainpoolP384r1"
	case "1.3.36.3.3.2.8.1.1.13":
		return "brainpoolP512r1"
	case "1.2.156.10197.1.301":
		return "SM2"
	default:
		return "the curve " + id
	}
}

// Signer returns the private key of b, which stands in the file called name.
// The error is a *files.Problem.
func (b *Block) Signer(name string) (crypto.Signer, error) {
	out := quote(beside(name, ".key"))
	switch {
	case b.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, &files.Problem{Path: name,
			Fact: "encrypted keys are not supported in this version",
			Hint: "decrypt it: openssl pkey -in " + quote(name) + " -out " + out,
		}
	case b.Type == "OPENSSH PRIVATE KEY":
		return nil, &files.Problem{Path: name,
			Fact: "this is an OpenSSH key",
			Hint: "name the key that the certificate was requested with; if it is this one, convert a copy: cp " + quote(name) + " " + out +
				" && ssh-keygen -p -m PKCS8 -N '' -f " + out,
		}
	}
	key, err := ParseKey(b.Bytes)
	if err != nil {
		return nil, &files.Problem{Path: name,
			Fact: fmt.Sprintf("line %d: the key in the block %s cannot be parsed", b.Line, b.Type), Err: err,
			Hint: "look at it: openssl pkey -in " + quote(name) + " -noout -text_pub",
		}
	}
	return key, nil
}
