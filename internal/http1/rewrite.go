package http1

import (
	"strconv"
	"strings"
)

// ForwardedMode says what becomes of Forwarded, X-Forwarded-* and their like.
type ForwardedMode uint8

const (
	ForwardedStrip ForwardedMode = iota // none reaches the upstream
	ForwardedPass                       // the caller's do
	ForwardedAdd                        // the caller's do, and ours behind them
)

// RequestRewrite is what changes on a request's way to the upstream.
type RequestRewrite struct {
	Host        string // the Host sent; "" keeps the caller's
	StripPrefix string // taken off the path, whole segments only; what is left begins with "/"
	AddPrefix   string // put before the path
	Via         string // our element for an HTTP/1.1 message, "1.1 mtls-proxy"; "" adds none

	Forwarded        ForwardedMode
	ForwardedElement []byte // made by AppendForwardedFor once per connection; host and proto are put behind it
	CallerAddress    string // for X-Forwarded-For; "" for a Unix socket, of which that field says nothing

	Edits *Edits
}

// AppendForwardedFor appends the first parameter of a Forwarded element (RFC 7239): the caller's
// IP address, or for=_unix when it is "".
func AppendForwardedFor(dst []byte, address string) []byte {
	dst = append(dst, "for="...)
	if address == "" {
		return append(dst, unixCaller...)
	}
	if !strings.Contains(address, ":") {
		return append(dst, address...)
	}
	dst = append(dst, `"[`...)
	dst = append(dst, address...)
	return append(dst, `]"`...)
}

// unixCaller is an obfuscated identifier, RFC 7239 section 6.3.
const unixCaller = "_unix"

// Bits of fields that Append writes itself or leaves out, whatever they say and whoever nominates them.
const (
	requestRemade = 1<<Host | 1<<Connection | 1<<KeepAlive | 1<<ProxyConnection | 1<<TE | 1<<TransferEncoding |
		1<<Upgrade | 1<<ContentLength | 1<<Expect | 1<<HTTP2Settings | 1<<ProxyAuthorization | 1<<ProxyAuthenticate |
		1<<ClientCert | 1<<HTTPProxy | 1<<Underscored
	forwardedFields = 1<<Forwarded | 1<<XForwardedFor | 1<<XForwardedHost | 1<<XForwardedProto | 1<<XForwarded
)

// Append writes the head that goes to the upstream: always HTTP/1.1 and, but for OPTIONS *, in
// origin-form; Host first; then the caller's fields in their order without
//   - hop-by-hop fields, and those that Connection nominates. A caller may so withhold its own Authorization or
//     Cookie, as RFC 9110 section 7.6.1 has it. Host, framing and Expect can not be nominated away, they are written from
//     what Parse found; nor can what we or the operator add;
//   - Client-Cert and its like, Proxy, and respelt names of fields that we set;
//   - what ForwardedMode and Edits take out;
//
// then ours: Forwarded and X-Forwarded-*, Via, Max-Forwards less one, Expect, the operator's, TE (only "trailers"), Upgrade and
// Connection, and last the framing. With Framing Chunked the body must be sent in chunks.
func (r *Request) Append(dst []byte, w *RequestRewrite) []byte {
	dst = r.appendLine(dst, w)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	if w.Host != "" {
		dst = append(dst, w.Host...)
	} else {
		dst = append(dst, r.Host...)
	}
	dst = append(dst, "\r\n"...)

	out := uint64(requestRemade)
	if w.Forwarded == ForwardedStrip {
		out |= forwardedFields
	}
	if w.Forwarded == ForwardedAdd {
		out |= 1 << Forwarded
		if w.CallerAddress != "" {
			out |= 1 << XForwardedFor
		}
	}
	if w.Via != "" {
		out |= 1 << Via
	}
	if r.Framing != Chunked {
		out |= 1 << Trailer
	}
	if r.MaxForwards >= 0 {
		out |= 1 << MaxForwards
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if out&(1<<f.ID) != 0 || f.flags&nominated != 0 || w.Edits.drops(f.Name) {
			continue
		}
		dst = f.append(dst)
	}

	if w.Forwarded == ForwardedAdd {
		dst = r.appendForwarded(dst, w)
	}
	if w.Via != "" && !w.Edits.replaces(Via) {
		dst = r.appendVia(dst, w.Via)
	}
	if r.MaxForwards > 0 {
		dst = append(dst, "Max-Forwards: "...)
		dst = strconv.AppendInt(dst, int64(r.MaxForwards-1), 10)
		dst = append(dst, "\r\n"...)
	}
	if r.Expect100 {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	if w.Edits != nil && !Echoes(r.Method) {
		dst = append(dst, w.Edits.lines...)
	}
	trailers := r.acceptsTrailers()
	switch {
	case r.Upgrade != nil && trailers:
		dst = append(dst, "TE: trailers\r\nConnection: Upgrade, TE\r\n"...)
	case r.Upgrade != nil:
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case trailers:
		dst = append(dst, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	if r.Upgrade != nil {
		dst = AppendField(dst, "Upgrade", r.Upgrade)
	}
	dst = r.appendFraming(dst, r.Framing)
	return append(dst, "\r\n"...)
}

// appendLine writes method and target.
func (r *Request) appendLine(dst []byte, w *RequestRewrite) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	if r.Form == AsteriskForm {
		return append(dst, '*')
	}
	path := r.Path
	if strip := noSlash(w.StripPrefix); strip != "" && hasSegments(path, strip) {
		path = path[len(strip):]
	}
	dst = append(dst, noSlash(w.AddPrefix)...)
	if len(path) == 0 {
		dst = append(dst, '/')
	}
	dst = append(dst, path...)
	return append(dst, r.Query...)
}

// noSlash takes the slash off a prefix's end, so that "/v2/" and "/v2" are one.
func noSlash(prefix string) string {
	if n := len(prefix); n > 0 && prefix[n-1] == '/' {
		return prefix[:n-1]
	}
	return prefix
}

// hasSegments reports whether path begins with prefix, which ends in no slash, at the border of a segment.
func hasSegments(path []byte, prefix string) bool {
	n := len(prefix)
	return len(path) >= n && string(path[:n]) == prefix && (len(path) == n || path[n] == '/')
}

func (f *Field) append(dst []byte) []byte {
	if f.flags&plain != 0 {
		return append(dst, f.raw()...)
	}
	dst = append(dst, f.Name...)
	dst = append(dst, ": "...)
	dst = append(dst, f.Value...)
	return append(dst, "\r\n"...)
}

// appendFraming writes the fields that tell how the body's end is found.
func (h *Head) appendFraming(dst []byte, out Framing) []byte {
	switch {
	case out == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case h.HasLength:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, h.ContentLength, 10)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// acceptsTrailers reports whether TE lists trailers.
func (r *Request) acceptsTrailers() bool {
	if r.has&(1<<TE) == 0 {
		return false
	}
	for i := range r.Fields {
		if r.Fields[i].ID != TE {
			continue
		}
		for rest := r.Fields[i].Value; rest != nil; {
			var coding []byte
			if coding, rest = cutElement(rest); equalFold(coding, "trailers") {
				return true
			}
		}
	}
	return false
}

// appendList begins the one line that takes the place of all fields of a list-valued ID; what
// goes behind it is one more element. Fields that would swallow that element are left out.
func (h *Head) appendList(dst []byte, name string, id ID) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	if h.has&(1<<id) == 0 {
		return dst
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == id && f.flags&nominated == 0 && len(f.Value) > 0 && closed(f.Value) {
			dst = append(dst, f.Value...)
			dst = append(dst, ", "...)
		}
	}
	return dst
}

// closed reports whether no quoted string or comment of value is left open to swallow what is put behind it.
func closed(value []byte) bool {
	quoted, depth := false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
		case c == ')' && !quoted && depth > 0:
			depth--
		}
	}
	return !quoted && depth == 0 && value[len(value)-1] != '\\'
}

// appendVia writes element behind the Via of those before us, with the version of this message in it.
func (h *Head) appendVia(dst []byte, element string) []byte {
	if h.has&(1<<Via) == 0 { // as a rule
		dst = append(dst, "Via: "...)
	} else {
		dst = h.appendList(dst, "Via", Via)
	}
	if v := "1.1 "; h.Minor == 0 && len(element) > len(v) && element[:len(v)] == v {
		dst = append(dst, "1.0 "...)
		element = element[len(v):]
	}
	dst = append(dst, element...)
	return append(dst, "\r\n"...)
}

func (r *Request) appendForwarded(dst []byte, w *RequestRewrite) []byte {
	if !w.Edits.replaces(Forwarded) {
		dst = r.appendList(dst, "Forwarded", Forwarded)
		dst = append(dst, w.ForwardedElement...)
		if len(r.Host) > 0 {
			// A Host that was accepted holds nothing that a quoted string would have to escape.
			dst = append(dst, `;host="`...)
			dst = append(dst, r.Host...)
			dst = append(dst, '"')
		}
		dst = append(dst, ";proto=http\r\n"...)
	}
	if w.CallerAddress != "" && !w.Edits.replaces(XForwardedFor) {
		dst = r.appendList(dst, "X-Forwarded-For", XForwardedFor)
		dst = append(dst, w.CallerAddress...)
		dst = append(dst, "\r\n"...)
	}
	if len(r.Host) > 0 && !r.passes(XForwardedHost) && !w.Edits.provides(XForwardedHost) {
		dst = AppendField(dst, "X-Forwarded-Host", r.Host)
	}
	if !r.passes(XForwardedProto) && !w.Edits.provides(XForwardedProto) {
		dst = append(dst, "X-Forwarded-Proto: http\r\n"...)
	}
	return dst
}

// passes reports whether a field of that ID is there and not nominated away.
func (h *Head) passes(id ID) bool {
	if h.has&(1<<id) == 0 {
		return false
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == id && f.flags&nominated == 0 {
			return true
		}
	}
	return false
}

// Echoes reports whether a server answers the method with what the request carries: TRACE, and TRACK on Windows. Secrets that the operator
// adds are not for the caller's eyes.
func Echoes(method []byte) bool {
	return len(method) == 5 && (equalFold(method, "trace") || equalFold(method, "track"))
}
