// Package fault says why an exchange did not get the upstream's answer, who is
// to blame and what the caller is told.
package fault

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Fault is one failure of one exchange. What the caller is told (Token, Status,
// Detail, RetryAfter) and what the log says (Err) are kept apart: Err may hold
// addresses, names and paths, and never reaches the caller.
type Fault struct {
	Token      Token
	Status     int           // what the caller is answered; 499: it is gone, nothing is sent
	Detail     string        // one sentence for the caller, nothing secret; "": Token.Summary()
	Fix        string        // likewise, what to do; "": Token.Fix()
	RetryAfter time.Duration // 0: the caller is not told when to come back
	Err        error         // for the log only; may be nil
}

// New returns the fault that t names, with t's status.
func New(t Token, err error) *Fault {
	return &Fault{Token: t, Status: t.Status(), Err: err}
}

// WithDetail returns a copy of f that tells the caller detail.
func (f *Fault) WithDetail(detail string) *Fault {
	g := *f
	g.Detail = detail
	return &g
}

// WithFix returns a copy of f that says what to do, where that of its token does not fit the detail.
func (f *Fault) WithFix(fix string) *Fault {
	g := *f
	g.Fix = fix
	return &g
}

// ToDo says in one sentence what to do about it.
func (f *Fault) ToDo() string {
	if f.Fix != "" {
		return f.Fix
	}
	return f.Token.Fix()
}

// Error is for the log: the token, then the cause.
func (f *Fault) Error() string {
	if f.Err == nil {
		return string(f.Token)
	}
	return string(f.Token) + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// AppendProblem appends the problem body of RFC 9457 to dst, followed by a
// newline. Nothing of Err is in it. An empty requestID is left out.
func (f *Fault) AppendProblem(dst []byte, requestID string) []byte {
	e := find(f.Token)
	detail := f.Detail
	if detail == "" {
		detail = e.summary
	}
	dst = append(dst, `{"type":"urn:mtls-proxy:fault:`...)
	dst = append(dst, e.token...)
	dst = append(dst, `","title":`...)
	dst = appendString(dst, e.summary)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(f.Status), 10)
	dst = append(dst, `,"detail":`...)
	dst = appendString(dst, detail)
	dst = append(dst, `,"fault":"`...)
	dst = append(dst, e.token...)
	dst = append(dst, `","blame":"`...)
	dst = append(dst, e.blame.String()...)
	dst = append(dst, `","fix":`...)
	dst = appendString(dst, f.ToDo())
	if requestID != "" {
		dst = append(dst, `,"request_id":`...)
		dst = appendString(dst, requestID)
	}
	return append(dst, "}\n"...)
}

// AppendProxyStatus appends the value of a Proxy-Status field (RFC 9209) to dst.
func (f *Fault) AppendProxyStatus(dst []byte) []byte {
	e := find(f.Token)
	dst = append(dst, "mtls-proxy; error="...)
	dst = append(dst, e.proxyError...)
	dst = append(dst, `; details="`...)
	dst = append(dst, e.token...)
	return append(dst, '"')
}

// appendString appends s as a JSON string (RFC 8259, section 7). Control
// characters and what a page or terminal could take for markup are escaped;
// bytes that are no UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c < 0x20 || c == 0x7f || c == '<' || c == '>' || c == '&':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, `\ufffd`...)
			case r < 0xa0: // C1 controls
				dst = append(dst, `\u00`...)
				dst = append(dst, hex[r>>4], hex[r&15])
			case r == 0x2028 || r == 0x2029: // line breaks to JavaScript
				dst = append(dst, `\u202`...)
				dst = append(dst, hex[r&15])
			default:
				dst = append(dst, s[i:i+n]...)
			}
			i += n
		}
	}
	return append(dst, '"')
}
