package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Phase says what was being done with the upstream when an error came up.
type Phase uint8

// The phases of an exchange with the upstream, in order.
const (
	PhaseResolve   Phase = iota // looking up the host's addresses
	PhaseConnect                // opening a TCP connection
	PhaseHandshake              // the TLS handshake
	PhaseSend                   // writing the request
	PhaseReceive                // reading the response
)

// Classify names the failure err that came up in phase p. A *Fault inside err
// is returned as it is; nil stays nil. The detail is made of fixed sentences
// only, so nothing that the upstream wrote or the configuration holds is in it.
//
// context.Canceled counts as the caller's leaving: whoever cancels for another
// reason passes that reason on as a Fault.
func Classify(p Phase, err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	t, detail := classify(p, err)
	f := New(t, err)
	f.Detail = detail
	return f
}

func classify(p Phase, err error) (t Token, detail string) {
	if errors.Is(err, context.Canceled) {
		return CallerGone, ""
	}
	if t, detail, ok := classifyDNS(err); ok {
		return t, detail
	}
	if t, detail, ok := classifyCertificate(err, time.Now()); ok {
		return t, detail
	}
	if t, detail, ok := classifyTLS(p, err); ok {
		return t, detail
	}
	if t, detail, ok := classifySyscall(p, err); ok {
		return t, detail
	}
	if isTimeout(err) {
		return timeoutOf(p), ""
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return endOf(p)
	}
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return ConfigurationError, "The upstream's address cannot be used; correct the upstream's url."
	}
	return unknownIn(p), ""
}

func classifyDNS(err error) (t Token, detail string, ok bool) {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case !ok:
		return "", "", false
	case e.IsTimeout:
		return DNSTimeout, "", true
	case e.IsNotFound:
		return DNSError, "The upstream's host name does not exist or has no address; check the host in the upstream's url.", true
	case e.IsTemporary:
		return DNSError, "The DNS server failed to resolve the upstream's host name; check this host's resolver.", true
	default:
		return DNSError, "", true
	}
}

// classifyCertificate names what x509 found wrong with the server's chain at now.
func classifyCertificate(err error, now time.Time) (t Token, detail string, ok bool) {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		t, detail = invalidCertificate(e, now)
		return t, detail, true
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		if c := e.Certificate; c != nil && len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) == 0 {
			return ServerNameMismatch, "The upstream's certificate carries no subject alternative name, and its common name does not count; the upstream needs a certificate with one.", true
		}
		return ServerNameMismatch, "", true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ServerCertificateUntrusted, "", true
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return ConfigurationError, "The system's root certificates could not be loaded; install ca-certificates, or set ca in the trust bundle.", true
	}
	if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
		return ServerCertificateInvalid, "The upstream's certificate has a critical extension that is not understood here, so it must not be accepted.", true
	}
	if _, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
		return ServerCertificateInvalid, "The upstream's certificate is signed with an algorithm that is no longer safe; the upstream needs a new certificate.", true
	}
	if _, ok := errors.AsType[x509.ConstraintViolationError](err); ok {
		return ServerCertificateInvalid, "A certificate in the upstream's chain was issued by one that must not issue certificates.", true
	}
	if errors.Is(err, x509.ErrUnsupportedAlgorithm) {
		return ServerCertificateInvalid, "The upstream's certificate uses an algorithm that is not supported here.", true
	}
	// Some other reason of VerifyConnection's or of crypto/tls's own check.
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return ServerCertificateInvalid, "", true
	}
	return "", "", false
}

func invalidCertificate(e x509.CertificateInvalidError, now time.Time) (t Token, detail string) {
	switch e.Reason {
	case x509.Expired: // also says: not yet valid
		if e.Cert != nil && now.Before(e.Cert.NotBefore) ||
			e.Cert == nil && strings.Contains(e.Detail, "is before") {
			return ServerCertificateNotYetValid, ""
		}
		return ServerCertificateExpired, ""
	case x509.IncompatibleUsage:
		return ServerCertificateInvalid, "The upstream's certificate is not meant for servers: its extended key usage lacks serverAuth."
	case x509.NotAuthorizedToSign:
		return ServerCertificateInvalid, "A certificate in the upstream's chain was issued by one that is no certificate authority."
	case x509.TooManyIntermediates:
		return ServerCertificateInvalid, "The upstream's certificate chain is longer than one of its authorities allows."
	case x509.CANotAuthorizedForThisName, x509.UnconstrainedName:
		return ServerCertificateInvalid, "The upstream's certificate carries a name that its authority is not allowed to certify."
	case x509.CANotAuthorizedForExtKeyUsage:
		return ServerCertificateInvalid, "The authority that issued the upstream's certificate is not allowed to issue it for servers."
	case x509.TooManyConstraints:
		return ServerCertificateInvalid, "The upstream's certificate chain has more name constraints than can be checked."
	case x509.NameConstraintsWithoutSANs:
		return ServerNameMismatch, "The upstream's certificate carries no subject alternative name, which its authority's name constraints ask for."
	case x509.NameMismatch:
		return ServerCertificateInvalid, "The names of subject and issuer in the upstream's certificate chain do not fit together."
	case x509.NoValidChains:
		return ServerCertificateUntrusted, ""
	default:
		return ServerCertificateInvalid, ""
	}
}

func classifySyscall(p Phase, err error) (t Token, detail string, ok bool) {
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return "", "", false
	}
	switch e {
	case syscall.ECONNREFUSED:
		return ConnectionRefused, "", true
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ENOTCONN:
		t, detail = endOf(p)
		if t == ResponseTruncated {
			t = ResponseReset
		}
		return t, detail, true
	case syscall.ETIMEDOUT:
		if p == PhaseSend || p == PhaseReceive {
			return ResponseReset, "The upstream's host stopped answering in the middle of the exchange.", true
		}
		return timeoutOf(p), "", true
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EAFNOSUPPORT:
		return NetworkUnreachable, "", true
	case syscall.EACCES, syscall.EPERM:
		return NetworkUnreachable, "This host does not allow the connection; check its firewall and the unit's IPAddressAllow=.", true
	case syscall.EADDRNOTAVAIL:
		if toIPv6(err) { // what an IPv6 address leads to where IPv6 is off
			return NetworkUnreachable, "This host has no IPv6 address from which the upstream's could be reached, or no free port for it.", true
		}
		return InternalError, "This host has no free local port for another connection; lower pool.max_active or keep more idle connections.", true
	case syscall.EMFILE, syscall.ENFILE:
		return InternalError, "The proxy has no file descriptor left for another connection; raise the unit's LimitNOFILE= or lower limits.max_connections.", true
	case syscall.ENOBUFS, syscall.ENOMEM:
		return InternalError, "This host has no memory left for another connection.", true
	case syscall.EBADF, syscall.ENOTSOCK, syscall.EFAULT, syscall.EISCONN, syscall.EALREADY, syscall.EINPROGRESS, syscall.EINTR, syscall.EAGAIN:
		return "", "", false // mistakes of ours, and no failures
	}
	// The network has many more reasons, and the system reports each in a way of its own.
	switch p {
	case PhaseResolve, PhaseConnect:
		if e == syscall.EINVAL {
			return NetworkUnreachable, "The system refuses the upstream's address as it is; a link-local IPv6 address, for one, does not say of which interface it is.", true
		}
		return NetworkUnreachable, "", true
	case PhaseHandshake:
		return ConnectionReset, "", true
	default:
		return ResponseReset, "", true
	}
}

// toIPv6 reports whether a connection to an IPv6 address failed.
func toIPv6(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return false
	}
	to, ok := e.Addr.(*net.TCPAddr)
	return ok && to.IP.To4() == nil
}

// isTimeout tells a deadline of ours from other errors.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func timeoutOf(p Phase) Token {
	switch p {
	case PhaseResolve:
		return DNSTimeout
	case PhaseConnect:
		return ConnectionTimeout
	case PhaseHandshake:
		return TLSHandshakeTimeout
	case PhaseSend:
		return RequestTimeout
	default:
		return ResponseHeaderTimeout
	}
}

// endOf names the upstream's closing the connection too early.
func endOf(p Phase) (t Token, detail string) {
	switch p {
	case PhaseResolve:
		return DNSError, ""
	case PhaseConnect:
		return ConnectionReset, ""
	case PhaseHandshake:
		return ConnectionReset, "The upstream closed the connection during the TLS handshake without giving a reason; " +
			"servers do so when they do not know the server name or do not like the client certificate."
	case PhaseSend:
		return ResponseReset, ""
	default:
		return ResponseTruncated, ""
	}
}

// unknownIn is for errors that nothing above knows.
func unknownIn(p Phase) Token {
	switch p {
	case PhaseResolve:
		return DNSError
	case PhaseHandshake:
		return TLSProtocolError
	default:
		return InternalError
	}
}
