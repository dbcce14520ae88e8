package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
	"github.com/mtls-proxy/mtls-proxy/internal/pemfile"
)

// arrangement is what becomes of the certificates of a file.
type arrangement struct {
	chain   []*x509.Certificate // the leaf, then its issuer, and so on
	others  []*x509.Certificate // further ways from the chain to other roots; sent behind it
	key     crypto.Signer
	remarks []string // what to change in the file
}

// arrange puts the certificates of a file in order, beginning with the one that
// belongs to key. Copies are left out. A file with a certificate that is on no
// way from the leaf to a root is refused: it may be meant for another identity.
func arrange(src Source, found []pemfile.Certificate, key crypto.Signer) (*arrangement, error) {
	var a arrangement
	rest := a.once(found)
	leaf, err := leafOf(src, rest, key)
	if err != nil {
		return nil, err
	}
	cur := rest[leaf]
	if leaf > 0 {
		a.remark("line %d: the certificate that belongs to the key is not the first in the file; put it first", cur.Line)
	}
	rest = without(rest, leaf)
	a.chain = append(a.chain, cur.Parsed)
	lines := map[*x509.Certificate]int{cur.Parsed: cur.Line}
	for !isRoot(cur.Parsed) {
		i := issuerOf(cur.Parsed, rest, time.Now())
		if i < 0 {
			break
		}
		next := rest[i]
		if next.Line < cur.Line && len(a.chain) > 1 {
			a.remark("line %d: the certificate %q stands before the one that it issued, at line %d; put it behind", next.Line, next.Subject, cur.Line)
		}
		a.chain = append(a.chain, next.Parsed)
		lines[next.Parsed] = next.Line
		rest, cur = without(rest, i), next
	}
	for len(rest) > 0 {
		i, above := otherWay(rest, a.chain, a.others)
		if i < 0 {
			return nil, &files.Problem{
				Path: src.Certificate,
				Fact: fmt.Sprintf("line %d: the certificate %q, issued by %q, is neither the identity's nor between it and its root",
					rest[0].Line, rest[0].Subject, rest[0].Parsed.Issuer),
				Hint: "take it out; keep the identity's certificate and those of the authorities above it",
			}
		}
		other := rest[i]
		if twin := above; twin != nil {
			a.remark("line %d: %q is there twice, issued by %q here and by %q at line %d; take this one out, unless an upstream trusts only %[3]q",
				other.Line, other.Subject, other.Parsed.Issuer, twin.Issuer, lines[twin])
		}
		a.others = append(a.others, other.Parsed)
		lines[other.Parsed] = other.Line
		rest = without(rest, i)
	}
	return &a, nil
}

func (a *arrangement) remark(format string, args ...any) {
	a.remarks = append(a.remarks, fmt.Sprintf(format, args...))
}

// once returns the certificates without copies of earlier ones.
func (a *arrangement) once(found []pemfile.Certificate) (kept []pemfile.Certificate) {
	first := map[string]int{}
	for _, c := range found {
		line, again := first[string(c.Parsed.Raw)]
		if again {
			a.remark("line %d: the certificate %q is the same as that of line %d; take this one out", c.Line, c.Subject, line)
			continue
		}
		first[string(c.Parsed.Raw)] = c.Line
		kept = append(kept, c)
	}
	return kept
}

func without(list []pemfile.Certificate, i int) []pemfile.Certificate {
	return append(list[:i:i], list[i+1:]...)
}

// leafOf returns the place of the certificate that belongs to key.
func leafOf(src Source, found []pemfile.Certificate, key crypto.Signer) (int, error) {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return 0, &files.Problem{Path: src.Key, Fact: fmt.Sprintf("keys of type %T cannot be used", key)}
	}
	for i, c := range found {
		if pub.Equal(c.Parsed.PublicKey) {
			return i, nil
		}
	}
	if err := pemfile.CheckKey(found[0].Parsed); err != nil {
		return 0, &files.Problem{Path: src.Certificate, Fact: "the certificate's key cannot be used", Err: err}
	}
	return 0, &files.Problem{
		Path: src.Certificate,
		Fact: fmt.Sprintf("the certificate does not belong to the key %s: the public keys differ (certificate: %s, key: %s)",
			src.Key, pemfile.KeyName(found[0].Parsed), pemfile.PublicKeyName(key.Public())),
		Hint: renewal(src),
	}
}

// issuerOf returns the place of the certificate that issued child: the first
// that is valid at now, or else the first; -1 when there is none.
func issuerOf(child *x509.Certificate, list []pemfile.Certificate, now time.Time) int {
	found := -1
	for i, c := range list {
		if !issued(c.Parsed, child) {
			continue
		}
		if !now.Before(c.Parsed.NotBefore) && !now.After(c.Parsed.NotAfter) {
			return i
		}
		if found < 0 {
			found = i
		}
	}
	return found
}

// otherWay returns the place of a certificate that leads from the chain to
// another root: a twin of an authority in it, which is returned too, or the
// issuer of such a twin; -1 when there is none.
func otherWay(list []pemfile.Certificate, chain, others []*x509.Certificate) (place int, twin *x509.Certificate) {
	for i, c := range list {
		for _, known := range chain[1:] {
			if bytes.Equal(c.Parsed.RawSubject, known.RawSubject) && bytes.Equal(c.Parsed.RawSubjectPublicKeyInfo, known.RawSubjectPublicKeyInfo) {
				return i, known
			}
		}
	}
	for i, c := range list {
		for _, known := range others {
			if issued(c.Parsed, known) {
				return i, nil
			}
		}
	}
	return -1, nil
}
