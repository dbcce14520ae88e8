package fault

import (
	"crypto/tls"
	"errors"
	"net"
	"reflect"
	"strconv"
	"strings"
)

// classifyTLS names what crypto/tls complains about other than certificates.
func classifyTLS(p Phase, err error) (t Token, detail string, ok bool) {
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		t, detail = notTLS(p, e.RecordHeader)
		return t, detail, true
	}
	if code, remote, ok := alertOf(err); ok {
		if remote {
			t, detail = remoteAlert(code)
		} else {
			t, detail = localAlert(code)
		}
		return t, detail, true
	}
	// For the rest crypto/tls has texts but no types.
	text := err.Error()
	i := strings.Index(text, "tls: ")
	if i < 0 {
		return "", "", false
	}
	switch text = text[i+len("tls: "):]; {
	case strings.HasPrefix(text, "server selected unsupported protocol version"),
		strings.HasPrefix(text, "downgrade attempt detected"):
		return TLSVersionMismatch, "", true
	case strings.HasPrefix(text, "failed to parse certificate from server"),
		strings.HasPrefix(text, "server's certificate contains an unsupported type of public key"):
		return ServerCertificateInvalid, "The upstream's certificate cannot be understood; the upstream needs a well-formed certificate with an RSA, ECDSA or Ed25519 key.", true
	case strings.HasPrefix(text, "server sent certificate containing RSA key larger"):
		return ServerCertificateInvalid, "The upstream's certificate has an RSA key larger than is accepted here.", true
	case strings.HasPrefix(text, "failed to sign handshake"),
		strings.HasPrefix(text, "client certificate private key"),
		strings.HasPrefix(text, "certificate RSA key size too small"):
		return ConfigurationError, "The identity's private key could not sign the TLS handshake; use an RSA key of 2048 bits or more, ECDSA or Ed25519.", true
	case strings.HasPrefix(text, "peer doesn't support any of the certificate's signature algorithms"):
		return TLSProtocolError, "The upstream accepts no signature algorithm that our client certificate's key can make; use a certificate with another kind of key.", true
	}
	return TLSProtocolError, "", true
}

// notTLS is for bytes that are no TLS record, of which crypto/tls keeps five.
func notTLS(p Phase, header [5]byte) (t Token, detail string) {
	switch {
	case p > PhaseHandshake:
		return TLSProtocolError, "The upstream sent bytes that are not TLS in the middle of the connection."
	case string(header[:]) == "HTTP/":
		return TLSProtocolError, "The upstream answered in plain HTTP; the url's port is not its TLS port."
	case string(header[:4]) == "SSH-":
		return TLSProtocolError, "The upstream speaks SSH; the url's port is not its TLS port."
	case string(header[:3]) == "220":
		return TLSProtocolError, "The upstream speaks a mail or file transfer protocol; the url's port is not its TLS port."
	default:
		return TLSProtocolError, "The upstream does not speak TLS on the url's port."
	}
}

// alertOf finds a TLS alert in err. remote: the upstream sent it; otherwise
// crypto/tls sent it because of something that it had received.
func alertOf(err error) (code uint8, remote, ok bool) {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		// crypto/tls keeps the alert's type to itself, but it is an octet.
		v := reflect.ValueOf(e.Err)
		if v.Kind() == reflect.Uint8 && v.Type().PkgPath() == "crypto/tls" {
			return uint8(v.Uint()), e.Op == "remote error", true
		}
	}
	if e, ok := errors.AsType[tls.AlertError](err); ok {
		return uint8(e), true, true
	}
	return 0, false, false
}

// remoteAlert names an alert of RFC 8446, section 6.2, or of an older TLS.
func remoteAlert(code uint8) (t Token, detail string) {
	name := alertName(code)
	switch code {
	case 42, 43, 44, 46, 49, 111, 114:
		t, detail = ClientCertificateRejected, "The upstream refused our client certificate"
		switch code {
		case 43:
			detail = "The upstream does not support our client certificate's kind of key or signature, or misses clientAuth in its extended key usage"
		case 44:
			detail = "The upstream says that our client certificate was revoked; have a new one issued"
		case 49:
			detail = "The upstream recognised our client certificate but does not let it in; ask its operator to grant access"
		}
	case 45:
		t, detail = ClientCertificateExpired, "The upstream says that our client certificate has expired"
	case 48:
		t, detail = ClientCAUnknown, "The upstream does not know the authority that issued our client certificate"
	case 116:
		t, detail = ClientCertificateRequired, "The upstream demands a client certificate and got none"
	case 70, 86:
		t, detail = TLSVersionMismatch, "The upstream does not speak a TLS version that we offer"
	case 40:
		t, detail = TLSAlert, "The upstream ended the TLS handshake: it shares no cipher or group with us, or it wants another client certificate"
	case 71:
		t, detail = TLSAlert, "The upstream demands stronger ciphers or keys than it was offered"
	case 112:
		t, detail = TLSAlert, "The upstream does not know the server name that we asked for; check the url or server_name"
	case 120:
		t, detail = TLSAlert, "The upstream does not speak HTTP/1.1 over TLS (ALPN)"
	case 80:
		t, detail = TLSAlert, "The upstream had an internal error in its TLS"
	case 51:
		t, detail = TLSAlert, "The upstream could not verify our signature; certificate and key may have been changed on the way"
	default:
		t, detail = TLSAlert, "The upstream ended the TLS connection"
	}
	return t, detail + " (TLS alert " + strconv.Itoa(int(code)) + name + ")."
}

// localAlert is for what crypto/tls refused.
func localAlert(code uint8) (t Token, detail string) {
	switch code {
	case 70:
		return TLSVersionMismatch, ""
	case 100:
		return TLSProtocolError, "The upstream asked for TLS renegotiation, perhaps to demand the client certificate late; that is not supported."
	case 22:
		return TLSProtocolError, "The upstream sent a TLS record that is too long."
	case 20:
		return TLSProtocolError, "A TLS record from the upstream was damaged on the way."
	default:
		return TLSProtocolError, "The upstream broke the TLS protocol."
	}
}

// alertNames holds the alerts as RFC 8446, appendix B.2, spells them.
var alertNames = [...]string{
	0:   "close_notify",
	10:  "unexpected_message",
	20:  "bad_record_mac",
	21:  "decryption_failed",
	22:  "record_overflow",
	30:  "decompression_failure",
	40:  "handshake_failure",
	41:  "no_certificate",
	42:  "bad_certificate",
	43:  "unsupported_certificate",
	44:  "certificate_revoked",
	45:  "certificate_expired",
	46:  "certificate_unknown",
	47:  "illegal_parameter",
	48:  "unknown_ca",
	49:  "access_denied",
	50:  "decode_error",
	51:  "decrypt_error",
	60:  "export_restriction",
	70:  "protocol_version",
	71:  "insufficient_security",
	80:  "internal_error",
	86:  "inappropriate_fallback",
	90:  "user_canceled",
	100: "no_renegotiation",
	109: "missing_extension",
	110: "unsupported_extension",
	111: "certificate_unobtainable",
	112: "unrecognized_name",
	113: "bad_certificate_status_response",
	114: "bad_certificate_hash_value",
	115: "unknown_psk_identity",
	116: "certificate_required",
	120: "no_application_protocol",
	121: "encrypted_client_hello_required",
}

// alertName returns ", name", or nothing for an alert that has none.
func alertName(code uint8) string {
	if int(code) >= len(alertNames) || alertNames[code] == "" {
		return ""
	}
	return ", " + alertNames[code]
}
