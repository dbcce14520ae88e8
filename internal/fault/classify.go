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
	c := classify(p, err)
	f := New(c.token, err)
	f.Detail, f.Fix = c.detail, c.fix
	return f
}

// cause is one of the reasons that a token stands for. Where detail and fix are empty, the token's summary and fix say it.
type cause struct {
	token       Token
	detail, fix string
}

func classify(p Phase, err error) cause {
	if errors.Is(err, context.Canceled) {
		return cause{token: CallerGone}
	}
	if c, ok := classifyDNS(err); ok {
		return c
	}
	if c, ok := classifyCertificate(err, time.Now()); ok {
		return c
	}
	if c, ok := classifyTLS(p, err); ok {
		return c
	}
	if c, ok := classifySyscall(p, err); ok {
		return c
	}
	if isTimeout(err) {
		return cause{token: timeoutOf(p)}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return endOf(p)
	}
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return cause{ConfigurationError, "The upstream's address cannot be used.", "Correct the upstream's url."}
	}
	return cause{token: unknownIn(p)}
}

func classifyDNS(err error) (c cause, ok bool) {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case !ok:
		return cause{}, false
	case e.IsTimeout:
		return cause{token: DNSTimeout}, true
	case e.IsNotFound:
		return cause{DNSError, "The upstream's host name does not exist or has no address.", "Check the host in the upstream's url."}, true
	case e.IsTemporary:
		return cause{DNSError, "The DNS server failed to resolve the upstream's host name.", "Check this host's resolver, and the DNS servers that it asks."}, true
	default:
		return cause{token: DNSError}, true
	}
}

// classifyCertificate names what x509 found wrong with the server's chain at now.
func classifyCertificate(err error, now time.Time) (c cause, ok bool) {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return invalidCertificate(e, now), true
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		if c := e.Certificate; c != nil && len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) == 0 {
			return cause{ServerNameMismatch, "The upstream's certificate carries no subject alternative name, and its common name does not count.", "The upstream's operator must install a certificate with a subject alternative name."}, true
		}
		return cause{token: ServerNameMismatch}, true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return cause{token: ServerCertificateUntrusted}, true
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return cause{ConfigurationError, "The system's root certificates could not be loaded.", "Install ca-certificates, or set ca in the trust bundle."}, true
	}
	if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
		return cause{ServerCertificateInvalid, "The upstream's certificate has a critical extension that is not understood here, so it must not be accepted.", "The upstream's operator must have a certificate issued without that extension, or with it not critical."}, true
	}
	if _, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
		return cause{ServerCertificateInvalid, "The upstream's certificate is signed with an algorithm that is no longer safe.", "The upstream's operator must have the certificate issued anew, signed with SHA-256 or better."}, true
	}
	if _, ok := errors.AsType[x509.ConstraintViolationError](err); ok {
		return cause{ServerCertificateInvalid, "A certificate in the upstream's chain was issued by one that must not issue certificates.", "The upstream's operator must install a certificate that an authority has issued."}, true
	}
	if errors.Is(err, x509.ErrUnsupportedAlgorithm) {
		return cause{ServerCertificateInvalid, "The upstream's certificate uses an algorithm that is not supported here.", "The upstream's operator must install a certificate with an RSA, ECDSA or Ed25519 key."}, true
	}
	// Some other reason of VerifyConnection's or of crypto/tls's own check.
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cause{token: ServerCertificateInvalid}, true
	}
	return cause{}, false
}

func invalidCertificate(e x509.CertificateInvalidError, now time.Time) cause {
	switch e.Reason {
	case x509.Expired: // also says: not yet valid
		if e.Cert != nil && now.Before(e.Cert.NotBefore) ||
			e.Cert == nil && strings.Contains(e.Detail, "is before") {
			return cause{token: ServerCertificateNotYetValid}
		}
		return cause{token: ServerCertificateExpired}
	case x509.IncompatibleUsage:
		return cause{ServerCertificateInvalid, "The upstream's certificate is not meant for servers: its extended key usage lacks serverAuth.", "The upstream's operator must have a certificate issued with serverAuth in its extended key usage."}
	case x509.NotAuthorizedToSign:
		return cause{ServerCertificateInvalid, "A certificate in the upstream's chain was issued by one that is no certificate authority.", "The upstream's operator must install a chain of certificate authorities, each with CA:TRUE."}
	case x509.TooManyIntermediates:
		return cause{ServerCertificateInvalid, "The upstream's certificate chain is longer than one of its authorities allows.", "The upstream's operator must have the certificate issued by an authority whose path length permits it."}
	case x509.CANotAuthorizedForThisName, x509.UnconstrainedName:
		return cause{ServerCertificateInvalid, "The upstream's certificate carries a name that its authority is not allowed to certify.", "The upstream's operator must have it issued by an authority whose name constraints permit that name."}
	case x509.CANotAuthorizedForExtKeyUsage:
		return cause{ServerCertificateInvalid, "The authority that issued the upstream's certificate is not allowed to issue it for servers.", "The upstream's operator must have it issued by an authority for servers."}
	case x509.TooManyConstraints:
		return cause{ServerCertificateInvalid, "The upstream's certificate chain has more name constraints than can be checked.", "The upstream's operator must use an authority with fewer name constraints."}
	case x509.NameConstraintsWithoutSANs:
		return cause{ServerNameMismatch, "The upstream's certificate carries no subject alternative name, which its authority's name constraints ask for.", "The upstream's operator must install a certificate with a subject alternative name."}
	case x509.NameMismatch:
		return cause{ServerCertificateInvalid, "The names of subject and issuer in the upstream's certificate chain do not fit together.", "The upstream's operator must install the certificates of one chain, the leaf first."}
	case x509.NoValidChains:
		return cause{token: ServerCertificateUntrusted}
	default:
		return cause{token: ServerCertificateInvalid}
	}
}

func classifySyscall(p Phase, err error) (c cause, ok bool) {
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return cause{}, false
	}
	switch e {
	case syscall.ECONNREFUSED:
		return cause{token: ConnectionRefused}, true
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ENOTCONN:
		c = endOf(p)
		if c.token == ResponseTruncated {
			c.token = ResponseReset
		}
		return c, true
	case syscall.ETIMEDOUT:
		if p == PhaseSend || p == PhaseReceive {
			return cause{ResponseReset, "The upstream's host stopped answering in the middle of the exchange.", "Check the network between this host and the upstream; the request may or may not have been acted on."}, true
		}
		return cause{token: timeoutOf(p)}, true
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EAFNOSUPPORT:
		return cause{token: NetworkUnreachable}, true
	case syscall.EACCES, syscall.EPERM:
		return cause{NetworkUnreachable, "This host does not allow the connection.", "Check its firewall and the unit's IPAddressAllow=."}, true
	case syscall.EADDRNOTAVAIL:
		if toIPv6(err) { // what an IPv6 address leads to where IPv6 is off
			return cause{NetworkUnreachable, "This host has no IPv6 address from which the upstream's could be reached, or no free port for it.", "Give this host an IPv6 address, or have the upstream's name resolve to IPv4 addresses."}, true
		}
		return cause{InternalError, "This host has no free local port for another connection.", "Lower pool.max_active, or keep more idle connections."}, true
	case syscall.EMFILE, syscall.ENFILE:
		return cause{InternalError, "The proxy has no file descriptor left for another connection.", "Raise the unit's LimitNOFILE=, or lower limits.max_connections."}, true
	case syscall.ENOBUFS, syscall.ENOMEM:
		return cause{InternalError, "This host has no memory left for another connection.", "Find out what takes this host's memory."}, true
	case syscall.EBADF, syscall.ENOTSOCK, syscall.EFAULT, syscall.EISCONN, syscall.EALREADY, syscall.EINPROGRESS, syscall.EINTR, syscall.EAGAIN:
		return cause{}, false // mistakes of ours, and no failures
	}
	// The network has many more reasons, and the system reports each in a way of its own.
	switch p {
	case PhaseResolve, PhaseConnect:
		if e == syscall.EINVAL {
			return cause{NetworkUnreachable, "The system refuses the upstream's address as it is; a link-local IPv6 address, for one, does not say of which interface it is.", "Write a name or a global address."}, true
		}
		return cause{token: NetworkUnreachable}, true
	case PhaseHandshake:
		return cause{token: ConnectionReset}, true
	default:
		return cause{token: ResponseReset}, true
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
func endOf(p Phase) cause {
	switch p {
	case PhaseResolve:
		return cause{token: DNSError}
	case PhaseConnect:
		return cause{token: ConnectionReset}
	case PhaseHandshake:
		return cause{ConnectionReset, "The upstream closed the connection during the TLS handshake without giving a reason; servers do so when they do not know the server name or do not like the client certificate.", "Look into the upstream's log; check server_name, and which client certificate is registered there."}
	case PhaseSend:
		return cause{token: ResponseReset}
	default:
		return cause{token: ResponseTruncated}
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
