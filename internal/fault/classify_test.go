package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	errno := func(e syscall.Errno) error { return os.NewSyscallError("connect", e) }
	early := &x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}
	late := &x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	verify := func(err error) error { return &tls.CertificateVerificationError{Err: err} }

	for _, tc := range []struct {
		name  string
		phase Phase
		err   error
		want  Token
	}{
		{"a fault stays itself", PhaseConnect, fmt.Errorf("try 2: %w", New(ServerPinMismatch, nil)), ServerPinMismatch},
		{"canceled while dialling", PhaseConnect, dial(context.Canceled), CallerGone},
		{"canceled while receiving", PhaseReceive, context.Canceled, CallerGone},

		{"name not found", PhaseConnect, dial(&net.DNSError{IsNotFound: true}), DNSError},
		{"resolver failed", PhaseResolve, &net.DNSError{IsTemporary: true, Err: "server misbehaving"}, DNSError},
		{"resolver slow", PhaseConnect, dial(&net.DNSError{IsTimeout: true}), DNSTimeout},
		{"deadline while resolving", PhaseResolve, context.DeadlineExceeded, DNSTimeout},

		{"refused", PhaseConnect, dial(errno(syscall.ECONNREFUSED)), ConnectionRefused},
		{"host unreachable", PhaseConnect, dial(errno(syscall.EHOSTUNREACH)), NetworkUnreachable},
		{"network unreachable", PhaseConnect, dial(errno(syscall.ENETUNREACH)), NetworkUnreachable},
		{"firewall of this host", PhaseConnect, dial(errno(syscall.EPERM)), NetworkUnreachable},
		{"link-local without a zone", PhaseConnect, dial(errno(syscall.EINVAL)), NetworkUnreachable},
		{"kernel gave up connecting", PhaseConnect, dial(errno(syscall.ETIMEDOUT)), ConnectionTimeout},
		{"reset while connecting", PhaseConnect, dial(errno(syscall.ECONNRESET)), ConnectionReset},
		{"no ports left", PhaseConnect, dial(errno(syscall.EADDRNOTAVAIL)), InternalError},
		{"no descriptors left", PhaseConnect, dial(errno(syscall.EMFILE)), InternalError},
		{"deadline while connecting", PhaseConnect, dial(os.ErrDeadlineExceeded), ConnectionTimeout},
		{"context deadline while connecting", PhaseConnect, context.DeadlineExceeded, ConnectionTimeout},
		{"address unusable", PhaseConnect, dial(&net.AddrError{Err: "missing port"}), ConfigurationError},

		{"deadline in the handshake", PhaseHandshake, os.ErrDeadlineExceeded, TLSHandshakeTimeout},
		{"closed in the handshake", PhaseHandshake, io.EOF, ConnectionReset},
		{"closed inside a handshake record", PhaseHandshake, io.ErrUnexpectedEOF, ConnectionReset},
		{"reset in the handshake", PhaseHandshake, errno(syscall.ECONNRESET), ConnectionReset},
		{"crypto/tls says it in words", PhaseHandshake, errors.New("tls: invalid server key share"), TLSProtocolError},
		{"server chose an old version", PhaseHandshake, errors.New("tls: server selected unsupported protocol version 301"), TLSVersionMismatch},
		{"server's certificate is garbage", PhaseHandshake, errors.New("tls: failed to parse certificate from server: x509: malformed"), ServerCertificateInvalid},
		{"our key cannot sign", PhaseHandshake, errors.New("tls: failed to sign handshake: rsa: message too long"), ConfigurationError},
		{"unknown in the handshake", PhaseHandshake, errors.New("odd"), TLSProtocolError},

		{"unknown authority", PhaseHandshake, verify(x509.UnknownAuthorityError{}), ServerCertificateUntrusted},
		{"wrong name", PhaseHandshake, verify(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}), ServerNameMismatch},
		{"expired", PhaseHandshake, verify(x509.CertificateInvalidError{Cert: late, Reason: x509.Expired}), ServerCertificateExpired},
		{"not yet valid", PhaseHandshake, x509.CertificateInvalidError{Cert: early, Reason: x509.Expired}, ServerCertificateNotYetValid},
		{"not yet valid, certificate unknown", PhaseHandshake, x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time A is before B"}, ServerCertificateNotYetValid},
		{"not for servers", PhaseHandshake, x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}, ServerCertificateInvalid},
		{"issued by a leaf", PhaseHandshake, x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}, ServerCertificateInvalid},
		{"critical extension", PhaseHandshake, x509.UnhandledCriticalExtension{}, ServerCertificateInvalid},
		{"SHA-1", PhaseHandshake, x509.InsecureAlgorithmError(x509.SHA1WithRSA), ServerCertificateInvalid},
		{"no system roots", PhaseHandshake, x509.SystemRootsError{}, ConfigurationError},
		{"verification failed otherwise", PhaseHandshake, verify(errors.New("other")), ServerCertificateInvalid},

		{"plain HTTP", PhaseHandshake, tls.RecordHeaderError{RecordHeader: [5]byte{'H', 'T', 'T', 'P', '/'}}, TLSProtocolError},

		{"reset while sending", PhaseSend, errno(syscall.EPIPE), ResponseReset},
		{"deadline while sending", PhaseSend, os.ErrDeadlineExceeded, RequestTimeout},
		{"reset while receiving", PhaseReceive, errno(syscall.ECONNRESET), ResponseReset},
		{"end while receiving", PhaseReceive, io.EOF, ResponseTruncated},
		{"host died while receiving", PhaseReceive, errno(syscall.ETIMEDOUT), ResponseReset},
		{"deadline while receiving", PhaseReceive, os.ErrDeadlineExceeded, ResponseHeaderTimeout},
		{"alert while receiving", PhaseReceive, &net.OpError{Op: "remote error", Err: tls.AlertError(116)}, ClientCertificateRequired},
		{"unknown while receiving", PhaseReceive, errors.New("odd"), InternalError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := Classify(tc.phase, tc.err)
			if f.Token != tc.want {
				t.Errorf("Classify(%d, %v) = %s, want %s", tc.phase, tc.err, f.Token, tc.want)
			}
			if f.Status != tc.want.Status() {
				t.Errorf("status = %d, want %d", f.Status, tc.want.Status())
			}
			if !errors.Is(f, tc.err) && !errors.As(tc.err, new(*Fault)) {
				t.Errorf("the cause %v was lost", tc.err)
			}
			if f.Detail != "" && !strings.HasSuffix(f.Detail, ".") {
				t.Errorf("detail is no sentence: %q", f.Detail)
			}
		})
	}
}

// What the network or a peer does is never our mistake. This host may be short of something, and there are errors that only a
// mistake of ours brings about.
func TestNoErrorOfTheNetworkIsAnInternalError(t *testing.T) {
	ours := map[syscall.Errno]bool{
		syscall.EADDRNOTAVAIL: true, syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOBUFS: true, syscall.ENOMEM: true,
		syscall.EBADF: true, syscall.ENOTSOCK: true, syscall.EFAULT: true, syscall.EISCONN: true, syscall.EALREADY: true,
		syscall.EINPROGRESS: true, syscall.EINTR: true, syscall.EAGAIN: true,
	}
	for p := PhaseResolve; p <= PhaseReceive; p++ {
		for e := syscall.Errno(1); e < 140; e++ {
			f := Classify(p, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", e)})
			if f.Token.Blame() != Upstream && !ours[e] {
				t.Errorf("Classify(%d, %d: %v) = %s, which blames the %s", p, int(e), e, f.Token, f.Token.Blame())
			}
		}
	}
}

func TestNoIPv6AddressIsNotAShortageOfPorts(t *testing.T) {
	for address, want := range map[string]Token{"::1": NetworkUnreachable, "127.0.0.1": InternalError} {
		err := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.ParseIP(address)}, Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
		if f := Classify(PhaseConnect, err); f.Token != want {
			t.Errorf("to %s: %s, want %s", address, f.Token, want)
		}
	}
}

func TestClassifyNil(t *testing.T) {
	if f := Classify(PhaseConnect, nil); f != nil {
		t.Errorf("Classify(nil) = %v, want nil", f)
	}
}

// TestAlertsFromTheWire runs each alert through crypto/tls, whose error type
// for them is not exported.
func TestAlertsFromTheWire(t *testing.T) {
	want := map[uint8]Token{
		40: TLSAlert, 42: ClientCertificateRejected, 43: ClientCertificateRejected, 44: ClientCertificateRejected,
		45: ClientCertificateExpired, 46: ClientCertificateRejected, 48: ClientCAUnknown, 49: ClientCertificateRejected,
		51: TLSAlert, 70: TLSVersionMismatch, 71: TLSAlert, 80: TLSAlert, 86: TLSVersionMismatch, 112: TLSAlert,
		116: ClientCertificateRequired, 120: TLSAlert, 255: TLSAlert,
	}
	for code, token := range want {
		f := Classify(PhaseHandshake, handshakeAgainst(t, []byte{21, 3, 3, 0, 2, 2, code}))
		if f.Token != token {
			t.Errorf("alert %d: %s (%v), want %s", code, f.Token, f.Err, token)
		}
		if mark := fmt.Sprintf("TLS alert %d", code); !strings.Contains(f.Detail, mark) {
			t.Errorf("alert %d: the detail does not say %q: %q", code, mark, f.Detail)
		}
	}
}

func TestPlainHTTPFromTheWire(t *testing.T) {
	f := Classify(PhaseHandshake, handshakeAgainst(t, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")))
	if f.Token != TLSProtocolError || !strings.Contains(f.Detail, "plain HTTP") {
		t.Errorf("a server without TLS: %s %q, want %s and a detail saying plain HTTP", f.Token, f.Detail, TLSProtocolError)
	}
}

func TestVersionsFromTheWire(t *testing.T) {
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(b, &tls.Config{
			MaxVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
		}).Handshake() // fails: that is the point
		b.Close()
	}()
	err := tls.Client(a, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "h"}).Handshake()
	a.Close()
	<-done
	if f := Classify(PhaseHandshake, err); f.Token != TLSVersionMismatch {
		t.Errorf("TLS 1.3 demanded of a TLS 1.2 server: %s (%v), want %s", f.Token, err, TLSVersionMismatch)
	}
}

func TestEndFromTheWire(t *testing.T) {
	f := Classify(PhaseHandshake, handshakeAgainst(t, nil))
	if f.Token != ConnectionReset {
		t.Errorf("a server that hangs up: %s (%v), want %s", f.Token, f.Err, ConnectionReset)
	}
}

// TestDetailsHoldNothingOfTheError: a detail is for the caller, an error for the log.
func TestDetailsHoldNothingOfTheError(t *testing.T) {
	const secret = "10.66.66.66"
	for p := PhaseResolve; p <= PhaseReceive; p++ {
		for _, err := range []error{
			errors.New(secret),
			errors.New("tls: " + secret),
			&net.DNSError{Err: secret, Name: secret, IsNotFound: true},
			x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{secret}}, Host: secret},
			&net.OpError{Op: secret, Err: syscall.ECONNREFUSED},
			&net.AddrError{Err: secret, Addr: secret},
		} {
			f := Classify(p, err)
			if got := string(f.AppendProblem(nil, "")) + string(f.AppendProxyStatus(nil)); strings.Contains(got, secret) {
				t.Errorf("phase %d, %T: %s", p, err, got)
			}
		}
	}
}

// handshakeAgainst starts a TLS handshake with a server that reads the
// ClientHello, writes answer and closes.
func handshakeAgainst(t *testing.T, answer []byte) error {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		if _, err := server.Read(make([]byte, 16<<10)); err != nil {
			t.Errorf("server: %v", err)
		}
		if len(answer) > 0 {
			_, _ = server.Write(answer) // the client may hang up before it has read all
		}
	}()
	err := tls.Client(client, &tls.Config{ServerName: "upstream.test", MinVersion: tls.VersionTLS12}).Handshake()
	client.Close()
	<-done
	if err == nil {
		t.Fatal("the handshake succeeded")
	}
	return err
}
