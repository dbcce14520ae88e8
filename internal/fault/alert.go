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
func classifyTLS(p Phase, err error) (c cause, ok bool) {
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return notTLS(p, e.RecordHeader), true
	}
	if code, remote, ok := alertOf(err); ok {
		if remote {
			return remoteAlert(code), true
		}
		return localAlert(code), true
	}
	// For the rest crypto/tls has texts but no types.
	text := err.Error()
	i := strings.Index(text, "tls: ")
	if i < 0 {
		return cause{}, false
	}
	switch text = text[i+len("tls: "):]; {
	case strings.HasPrefix(text, "server selected unsupported protocol version"),
		strings.HasPrefix(text, "downgrade attempt detected"):
		return cause{token: TLSVersionMismatch}, true
	case strings.HasPrefix(text, "failed to parse certificate from server"),
		strings.HasPrefix(text, "server's certificate contains an unsupported type of public key"):
		return cause{ServerCertificateInvalid, "The upstream's certificate cannot be understood.", "The upstream's operator must install a well-formed certificate with an RSA, ECDSA or Ed25519 key."}, true
	case strings.HasPrefix(text, "server sent certificate containing RSA key larger"):
		return cause{ServerCertificateInvalid, "The upstream's certificate has an RSA key larger than is accepted here.", "The upstream's operator must install a certificate with an RSA key of 8192 bits at most, or an ECDSA key."}, true
	case strings.HasPrefix(text, "failed to sign handshake"),
		strings.HasPrefix(text, "client certificate private key"),
		strings.HasPrefix(text, "certificate RSA key size too small"):
		return cause{ConfigurationError, "The identity's private key could not sign the TLS handshake.", "Use an RSA key of 2048 bits or more, ECDSA or Ed25519."}, true
	case strings.HasPrefix(text, "peer doesn't support any of the certificate's signature algorithms"):
		return cause{TLSProtocolError, "The upstream accepts no signature algorithm that our client certificate's key can make.", "Use a client certificate with another kind of key, or have the upstream accept more algorithms."}, true
	}
	return cause{token: TLSProtocolError}, true
}

// notTLS is for bytes that are no TLS record, of which crypto/tls keeps five.
func notTLS(p Phase, header [5]byte) cause {
	switch {
	case p > PhaseHandshake:
		return cause{TLSProtocolError, "The upstream sent bytes that are not TLS in the middle of the connection.", "Look for what stands between this host and the upstream, and into the upstream's log."}
	case string(header[:]) == "HTTP/":
		return cause{TLSProtocolError, "The upstream answered in plain HTTP.", "Correct the url's port: it is not the one on which the upstream speaks TLS."}
	case string(header[:4]) == "SSH-":
		return cause{TLSProtocolError, "The upstream speaks SSH.", "Correct the url's port: it is not the one on which the upstream speaks TLS."}
	case string(header[:3]) == "220":
		return cause{TLSProtocolError, "The upstream speaks a mail or file transfer protocol.", "Correct the url's port: it is not the one on which the upstream speaks TLS."}
	default:
		return cause{TLSProtocolError, "The upstream does not speak TLS on the url's port.", "Correct the url's port, or have the upstream speak TLS there."}
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
func remoteAlert(code uint8) (c cause) {
	switch code {
	case 42, 46, 111, 114:
		c = cause{token: ClientCertificateRejected, detail: "The upstream refused our client certificate"}
	case 43:
		c = cause{ClientCertificateRejected, "The upstream does not support our client certificate's kind of key or signature, or misses clientAuth in its extended key usage",
			"Have a client certificate issued with a kind of key that the upstream takes, and with clientAuth in its extended key usage."}
	case 44:
		c = cause{ClientCertificateRejected, "The upstream says that our client certificate was revoked", "Have a new client certificate issued, put it in place and reload."}
	case 49:
		c = cause{ClientCertificateRejected, "The upstream recognised our client certificate but does not let it in",
			"Ask the upstream's operator to grant access to the certificate; name its serial and issuer."}
	case 45:
		c = cause{token: ClientCertificateExpired, detail: "The upstream says that our client certificate has expired"}
	case 48:
		c = cause{token: ClientCAUnknown, detail: "The upstream does not know the authority that issued our client certificate"}
	case 116:
		c = cause{token: ClientCertificateRequired, detail: "The upstream demands a client certificate and got none"}
	case 70, 86:
		c = cause{token: TLSVersionMismatch, detail: "The upstream does not speak a TLS version that we offer"}
	case 40:
		c = cause{TLSAlert, "The upstream ended the TLS handshake: it shares no cipher or group with us, or it wants another client certificate",
			"Ask the upstream's operator which ciphers, groups and client certificates are accepted there."}
	case 71:
		c = cause{TLSAlert, "The upstream demands stronger ciphers or keys than it was offered",
			"Use a client certificate with a stronger key, or ask the upstream's operator which ciphers are accepted."}
	case 112:
		c = cause{TLSAlert, "The upstream does not know the server name that we asked for", "Correct the url, or set server_name to a name that the upstream serves."}
	case 120:
		c = cause{TLSAlert, "The upstream does not speak HTTP/1.1 over TLS (ALPN)", "Have the upstream offer http/1.1 (ALPN) on this port."}
	case 80:
		c = cause{TLSAlert, "The upstream had an internal error in its TLS", "Look into the upstream's log, or ask its operator."}
	case 51:
		c = cause{TLSAlert, "The upstream could not verify our signature", "Look for what changes bytes between this host and the upstream."}
	default:
		c = cause{token: TLSAlert, detail: "The upstream ended the TLS connection"}
	}
	c.detail += " (TLS alert " + strconv.Itoa(int(code)) + alertName(code) + ")."
	return c
}

// localAlert is for what crypto/tls refused.
func localAlert(code uint8) cause {
	switch code {
	case 70:
		return cause{token: TLSVersionMismatch}
	case 100:
		return cause{TLSProtocolError, "The upstream asked for TLS renegotiation, perhaps to demand the client certificate late.", "The upstream's operator must demand the client certificate for the whole server instead of single paths, or use TLS 1.3."}
	case 22:
		return cause{TLSProtocolError, "The upstream sent a TLS record that is too long.", "Report it to the upstream's operator; check what stands between this host and the upstream."}
	case 20:
		return cause{TLSProtocolError, "A TLS record from the upstream was damaged on the way.", "Look for what changes bytes between this host and the upstream."}
	default:
		return cause{TLSProtocolError, "The upstream broke the TLS protocol.", "Report it to the upstream's operator; the log says what was wrong."}
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
