package pemfile

import (
	"crypto/x509/pkix"
	"encoding/asn1"
)

// describe tells what can be told of a certificate that crypto/x509 does not take.
func (c *Certificate) describe(der []byte) {
	f, ok := fieldsOf(der)
	if !ok {
		return
	}
	var rdn pkix.RDNSequence
	if _, err := asn1.Unmarshal(f.subject.FullBytes, &rdn); err == nil {
		var name pkix.Name
		name.FillFromRDNSequence(&rdn)
		c.Subject = name.String()
	}
	var info publicKeyInfo
	if _, err := asn1.Unmarshal(f.key.FullBytes, &info); err == nil && info.Algorithm.Algorithm.Equal(ecPublicKey) && !info.knownCurve() {
		c.Err = unusable(info.name())
	}
}

// fields are some of a certificate's, unparsed.
type fields struct{ subject, key asn1.RawValue }

// fieldsOf finds the fields by their places in the Certificate of RFC 5280, and
// asks nothing of those that it passes.
func fieldsOf(der []byte) (f fields, ok bool) {
	tbs, ok := sequence(der)
	if !ok {
		return f, false
	}
	rest, ok := sequence(tbs)
	if !ok {
		return f, false
	}
	var v asn1.RawValue
	if rest, ok = take(rest, &v); ok && v.Class == asn1.ClassContextSpecific { // the version, which may be left out
		rest, ok = take(rest, &v) // the serial number
	}
	for range 3 { // the signature's algorithm, issuer, validity
		if ok {
			rest, ok = take(rest, &v)
			ok = ok && isSequence(v)
		}
	}
	if ok {
		rest, ok = take(rest, &f.subject)
	}
	if ok {
		_, ok = take(rest, &f.key)
	}
	return f, ok && isSequence(f.subject) && isSequence(f.key)
}

// sequence returns what the first value of der holds, a SEQUENCE.
func sequence(der []byte) (content []byte, ok bool) {
	var v asn1.RawValue
	_, ok = take(der, &v)
	return v.Bytes, ok && isSequence(v)
}

func take(der []byte, v *asn1.RawValue) (rest []byte, ok bool) {
	rest, err := asn1.Unmarshal(der, v)
	return rest, err == nil
}

func isSequence(v asn1.RawValue) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == asn1.TagSequence
}
