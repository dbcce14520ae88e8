package fault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// A fix belongs to its cause: a token that stands for several causes has one fix for each.
func TestFixesBelongToTheirCause(t *testing.T) {
	tls := func(text string) error { return errors.New("tls: " + text) }
	seen := make(map[string]string) // the cause, by token and fix
	for _, err := range []error{
		tls("peer doesn't support any of the certificate's signature algorithms"), tls("failed to sign handshake"), tls("server sent certificate containing RSA key larger than 8192"),
		tls("failed to parse certificate from server"), x509.UnhandledCriticalExtension{}, x509.InsecureAlgorithmError(x509.SHA1WithRSA), x509.ConstraintViolationError{},
		x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}, x509.CertificateInvalidError{Reason: x509.TooManyIntermediates},
		x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}, &net.DNSError{IsNotFound: true}, &net.DNSError{IsTemporary: true},
		syscall.EACCES, syscall.EMFILE, syscall.ENOMEM, &net.AddrError{},
	} {
		t.Run(fmt.Sprintf("%T %[1]v", err), func(t *testing.T) {
			f := Classify(PhaseHandshake, err)
			if f.Detail == "" || f.Fix == "" || f.Fix == f.Token.Fix() {
				t.Errorf("%s: %q, to do %q; want both to be its own", f.Token, f.Detail, f.Fix)
			}
			if strings.Contains(f.Detail, ";") && strings.Contains(strings.ToLower(f.Detail), "check ") {
				t.Errorf("the detail says what to do: %q", f.Detail)
			}
			if other, twice := seen[f.Fix]; twice {
				t.Errorf("%q and %q have the same fix", other, f.Detail)
			}
			seen[f.Fix] = f.Detail
			if !strings.Contains(string(f.AppendProblem(nil, "")), `"fix":"`+strings.ReplaceAll(f.Fix, `"`, `\"`)+`"`) {
				t.Errorf("the problem does not have it: %s", f.AppendProblem(nil, ""))
			}
		})
	}
}

func TestEveryAlertHasItsFix(t *testing.T) {
	for code := range 122 {
		for _, c := range []cause{remoteAlert(uint8(code)), localAlert(uint8(code))} {
			if c.fix == "" && c.token.Fix() == "" {
				t.Errorf("alert %d: nothing to do about %s", code, c.token)
			}
			if _, advice, ok := strings.Cut(c.detail, "; "); ok {
				t.Errorf("alert %d: the detail says what to do: %q", code, advice)
			}
		}
	}
	if renegotiation, record := localAlert(100), localAlert(22); renegotiation.fix == record.fix || strings.Contains(renegotiation.fix, "port") {
		t.Errorf("renegotiation is to be mended by %q", renegotiation.fix)
	}
}
