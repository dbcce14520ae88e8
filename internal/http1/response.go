package http1

import "bytes"

// Response is the head of one response. Its slices lie in the buffer given to Parse.
//
// Head.Upgrade is set for 101 and 426 only, and only when Connection names upgrade. Head.Close is also set when the
// connection can not carry another exchange because of the body's framing.
type Response struct {
	Head

	Status           int
	Reason           []byte // as sent; may be empty
	KeepAliveTimeout int    // seconds that the upstream promises to keep an idle connection; -1: not told
}

// Reset makes r ready for another message.
func (r *Response) Reset() {
	if !r.used {
		return
	}
	s := r.take()
	*r = Response{}
	r.give(s)
}

// Release lets go of the buffer that was given to Parse: fields and reason are gone, everything else stays.
func (r *Response) Release() {
	clear(r.Fields)
	r.Fields, r.Reason = r.Fields[:0], nil
}

// Interim reports whether another response to the same request follows: 1xx but 101.
func (r *Response) Interim() bool { return r.Status < 200 && r.Status != 101 }

// Interims counts the interim responses to one request.
type Interims int

// Pass counts one more. More than MaxInterim are an error, of Kind Malformed.
func (n *Interims) Pass() error {
	if *n++; *n > MaxInterim {
		return &responseFlaws[flawInterims]
	}
	return nil
}

// Parse reads a response's head from the beginning of b, as Request.Parse does; head tells that
// the request was HEAD. Limits.MaxRequestLine does not count here.
//
// Responses to HEAD and those with 1xx, 204 or 304 have no body, whatever their fields say. A 204 that announces one all
// the same sets Close; a 1xx that does is Malformed, as what follows it might be taken for the final response. In
// a 101, framing fields mean nothing: the new protocol follows it (RFC 9110 section 15.2.2).
func (r *Response) Parse(b []byte, head bool, l *Limits) (n int, err error) {
	r.used = true
	limits := l.orDefault()
	n, bad := r.parse(b, head, &limits)
	if bad != sound {
		return 0, &responseFlaws[bad]
	}
	return n, nil
}

func (r *Response) parse(b []byte, head bool, l *Limits) (n int, _ flaw) {
	if r.buf != nil && !r.resume(b, &r.Reason) {
		return 0, overdueHead(b, l)
	}
	pos := r.pos
	if !r.started {
		next, bad := r.readLine(b)
		if bad != sound {
			return 0, bad
		}
		if next == 0 {
			return 0, overdueHead(b, l)
		}
		pos, r.started = next, true
	}
	n, bad := r.lines(b, pos, l)
	switch {
	case bad != sound:
		return 0, bad
	case n == 0:
		return 0, overdueHead(b, l)
	case n > l.MaxHead:
		return 0, flawHeadTooLarge
	}
	r.buf = nil
	return n, r.finish(head)
}

func overdueHead(b []byte, l *Limits) flaw {
	if len(b) > l.MaxHead {
		return flawHeadTooLarge
	}
	return sound
}

// readLine parses the status line and returns where the next line begins, or 0. The reason may be missing together with
// the space before it: many servers do so, and nothing depends on it.
func (r *Response) readLine(b []byte) (next int, _ flaw) {
	const version, code, usual = "HTTP/1.1", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n"
	if len(b) >= len(usual) && string(b[:len(usual)]) == usual {
		r.Minor, r.Status, r.Reason = 1, 200, b[len(code)+1:len(usual)-2]
		return len(usual), sound
	}
	if n := min(len(b), len(version)-1); string(b[:n]) != version[:n] {
		return 0, flawStartLine
	}
	lf := bytes.IndexByte(b, '\n')
	if lf < 0 {
		r.pause(b, 0)
		return 0, sound
	}
	line := b[:lf]
	if lf == 0 || line[lf-1] != '\r' {
		return 0, flawBareLF
	}
	line = line[:lf-1]
	if len(line) < len(code) {
		return 0, flawStatus
	}
	if r.readVersion(line[:len(version)]) != sound {
		return 0, flawStartLine
	}
	status, ok := decimal(line[len(version)+1 : len(code)])
	if !ok || status < 100 || line[len(version)] != ' ' {
		return 0, flawStatus
	}
	r.Status, r.Reason = int(status), nil
	if rest := line[len(code):]; len(rest) > 0 {
		if rest[0] != ' ' || skipValue(rest, 0) != len(rest) {
			return 0, flawStatus
		}
		r.Reason = rest[1:]
	}
	return lf + 1, sound
}

func (r *Response) finish(head bool) flaw {
	r.KeepAliveTimeout = -1
	if bad := r.readConnection(); bad != sound {
		return bad
	}
	if r.Status != 101 {
		if bad := r.readFraming(); bad != sound {
			return bad
		}
	}
	r.Close = r.listed&optionClose != 0 || r.Minor == 0 && r.listed&optionKeepAlive == 0
	switch {
	case r.Status < 200:
		if r.Framing != NoBody {
			return flawInterimBody
		}
		r.HasLength = false
	case r.Status == 204:
		if r.Framing != NoBody {
			r.Close = true
		}
		r.Framing, r.HasLength, r.ContentLength = NoBody, false, 0
	case head || r.Status == 304:
		r.Framing = NoBody
	case r.Framing == NoBody && !r.HasLength:
		r.Framing, r.Close = UntilClose, true
	}
	r.readFields()
	if r.listed&optionUpgrade != 0 && r.Minor == 1 && (r.Status == 101 || r.Status == 426) {
		return r.readUpgrade()
	}
	return sound
}

func (r *Response) readFields() {
	if r.has&(1<<KeepAlive|1<<WWWAuthenticate|1<<ProxyAuthenticate) == 0 {
		return
	}
	for i := range r.Fields {
		switch f := &r.Fields[i]; f.ID {
		case WWWAuthenticate, ProxyAuthenticate:
			r.ConnectionAuth = r.ConnectionAuth || connectionBound(f.Value)
		case KeepAlive:
			for rest := f.Value; rest != nil; {
				var option []byte
				option, rest = cutElement(rest)
				name, value, _ := bytes.Cut(option, []byte("="))
				if n, ok := decimal(trim(value)); ok && equalFold(trim(name), "timeout") {
					r.KeepAliveTimeout = int(min(n, 1<<30))
				}
			}
		}
	}
}

// OutFraming is how the body goes on to a caller of HTTP/1.callerMinor: as it came where that is
// possible, else in chunks; for an HTTP/1.0 caller, who knows no chunks, to the end of the connection, which
// then is to be closed.
func (r *Response) OutFraming(callerMinor uint8) (out Framing, closing bool) {
	switch {
	case r.Framing == NoBody || r.Framing == Length:
		return r.Framing, false
	case callerMinor == 0:
		return UntilClose, true
	}
	return Chunked, false
}

// Default is a field that is put into responses which lack it, or into an Answer.
type Default struct{ Name, Value string }

// ResponseRewrite is what changes on a response's way to the caller.
type ResponseRewrite struct {
	CallerMinor uint8  // the caller speaks HTTP/1.CallerMinor
	Close       bool   // the caller's connection is closed after this response
	KeepAlive10 bool   // the caller asked for "Connection: keep-alive" in HTTP/1.0, and is to have it
	Via         string // our element for an HTTP/1.1 message; "" adds none
	Defaults    []Default
	Edits       *Edits
	Location    *LocationRewrite // nil: Location and Set-Cookie stay as they are
	Host        []byte           // what the caller calls us, for Location
	Date        []byte           // the value of Date for a response without; nil adds none
}

// Bits of fields that Append writes itself or leaves out.
const responseRemade = 1<<Connection | 1<<KeepAlive | 1<<ProxyConnection | 1<<TE | 1<<TransferEncoding |
	1<<Upgrade | 1<<ContentLength | 1<<HTTP2Settings | 1<<ProxyAuthorization | 1<<ProxyAuthenticate |
	1<<Underscored

// Append writes the head that goes to the caller: always HTTP/1.1, the upstream's status and
// reason, its fields in their order but hop-by-hop fields, those that Connection nominates and those that Edits take out; then
// ours, the operator's, Upgrade, Connection and the framing that OutFraming tells. Close is added where
// OutFraming asks for it.
//
// Interim responses and 101 are passed on as well and get no Defaults, no Date and nothing from Edits, which only takes
// fields out of them. HTTP/1.0 callers must not be sent interim responses; that is the engine's to see to.
func (r *Response) Append(dst []byte, w *ResponseRewrite) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+r.Status/100), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
	dst = append(dst, r.Reason...)
	dst = append(dst, "\r\n"...)

	framing, closing := r.OutFraming(w.CallerMinor)
	out := uint64(responseRemade)
	if w.Via != "" {
		out |= 1 << Via
	}
	if r.Framing != Chunked || framing != Chunked {
		out |= 1 << Trailer
	}
	rewritten := uint64(0)
	if w.Location != nil {
		rewritten = 1<<Location | 1<<ContentLocation | 1<<SetCookie
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if out&(1<<f.ID) != 0 || f.flags&nominated != 0 || w.Edits.drops(f.Name) {
			continue
		}
		if f.ID == ProxyStatus {
			dst = f.appendOthers(dst, OwnName)
			continue
		}
		if rewritten&(1<<f.ID) != 0 {
			dst = w.Location.append(dst, f, w.Host)
			continue
		}
		dst = f.append(dst)
	}

	if w.Via != "" && !w.Edits.replaces(Via) {
		dst = r.appendVia(dst, w.Via)
	}
	if r.Status >= 200 {
		if w.Date != nil && !r.passes(Date) && !w.Edits.provides(Date) {
			dst = AppendField(dst, "Date", w.Date)
		}
		for i := range w.Defaults {
			if d := &w.Defaults[i]; !r.sent(d.Name) && !w.Edits.mentions(d.Name) {
				dst = AppendField(dst, d.Name, d.Value)
			}
		}
		if w.Edits != nil {
			dst = append(dst, w.Edits.lines...)
		}
	}
	if r.Upgrade != nil {
		dst = AppendField(dst, "Upgrade", r.Upgrade)
	}
	closing = closing || w.Close
	switch {
	case r.Interim():
	case r.Status == 101:
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case closing && r.Upgrade != nil:
		dst = append(dst, "Connection: close, Upgrade\r\n"...)
	case closing:
		dst = append(dst, "Connection: close\r\n"...)
	case r.Upgrade != nil:
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case w.KeepAlive10 && w.CallerMinor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	dst = r.appendFraming(dst, framing)
	return append(dst, "\r\n"...)
}

// OwnName is what we call ourselves in Proxy-Status and Via.
const OwnName = "mtls-proxy"

// appendOthers writes f, a list of RFC 8941 whose members begin with the name of a proxy, without the members of that name: only we may
// say what became of a request with us. What is no such list might hide one, and is left out.
func (f *Field) appendOthers(dst []byte, own string) []byte {
	start, some := len(dst), false
	dst = append(dst, f.Name...)
	dst = append(dst, ": "...)
	for rest := f.Value; rest != nil; {
		var member []byte
		var ok bool
		if member, rest, ok = cutMember(rest); !ok {
			return dst[:start]
		}
		if len(member) == 0 || isNamed(member, own) {
			continue
		}
		if some {
			dst = append(dst, ", "...)
		}
		dst, some = append(dst, member...), true
	}
	if !some {
		return dst[:start]
	}
	return append(dst, "\r\n"...)
}

// cutMember takes the first member off a list; rest is nil behind the last. False: a quoted string or a list in parentheses has no end.
func cutMember(list []byte) (member, rest []byte, ok bool) {
	quoted, depth := false, 0
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			return trim(list[:i]), list[i+1:], true
		}
	}
	return trim(list), nil, !quoted && depth == 0
}

// isNamed reports whether a member's name, a token or a string, is own, in any case.
func isNamed(member []byte, own string) bool {
	name, _, _ := bytes.Cut(member, []byte(";"))
	name = bytes.Trim(name, "\" \t")
	return equalFold(name, own)
}

// sent reports whether a field of that name goes on to the caller.
func (h *Head) sent(name string) bool {
	if h.lengths&lengthBit(name) == 0 {
		return false
	}
	for i := range h.Fields {
		f := &h.Fields[i]
		if len(f.Name) == len(name) && f.flags&nominated == 0 && sameName(f.Name, name) {
			return true
		}
	}
	return false
}

// sameName compares names of one length, in any case.
func sameName(a []byte, b string) bool {
	for i, c := range a {
		if toLower[c] != toLower[b[i]] {
			return false
		}
	}
	return true
}
