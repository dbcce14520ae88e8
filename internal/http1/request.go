package http1

import "bytes"

// Request is the head of one request. Its slices lie in the buffer given to Parse.
//
// Head.Upgrade is set for HTTP/1.1 when Connection names upgrade, whatever the method and the body. The body comes first:
// only behind it, and behind a 101, does the new protocol begin (RFC 9110 section 7.8).
type Request struct {
	Head

	Method, Target []byte // as sent
	Form           Form
	Host           []byte // the authority asked for: of an absolute target, else the Host field; nil for HTTP/1.0 without
	Path, Query    []byte // of the target, byte for byte; Query begins with its "?"; Path of AsteriskForm is "*"

	OddHost        bool // Host is there and is none, which Limits.AnyHost permits; Request.Host is nil then
	KeepAliveToken bool // HTTP/1.0 with "Connection: keep-alive": tell it when the connection stays open
	Expect100      bool // an HTTP/1.1 caller waits for 100 (Continue) before it sends the body
	Idempotency    bool // one Idempotency-Key is there, and is not empty: a server may go by any of several, or by none
	MaxForwards    int  // of OPTIONS and TRACE: at 0 the request is not to be forwarded, RFC 9110 section 7.6.2; else -1

	// For the browser guard; nil when not there.
	Origin, SecFetchSite, AccessControlRequestMethod []byte
}

// maxMethod is beyond the longest registered method, with room.
const maxMethod = 32

// tlsHandshake is the content type of a TLS record that holds a ClientHello, RFC 8446 section 5.1.
const tlsHandshake = 0x16

// Reset makes r ready for another message.
func (r *Request) Reset() {
	if !r.used {
		return
	}
	s := r.take()
	*r = Request{}
	r.give(s)
}

// Parse reads a request's head from the beginning of b and returns its length, the empty line
// included. At 0 and no error b ends too early: call again with the same bytes and more behind them, in the same buffer
// or another; no byte is looked at more than a few times, however many calls it takes. After an error or
// a whole head, Reset comes first.
//
// One empty line before the request is skipped and counted (RFC 9112 section 2.2). l may be nil.
func (r *Request) Parse(b []byte, l *Limits) (n int, err error) {
	r.used = true
	limits := l.orDefault()
	n, bad := r.parse(b, &limits)
	if bad != sound {
		return 0, &flaws[bad]
	}
	return n, nil
}

func (r *Request) parse(b []byte, l *Limits) (n int, _ flaw) {
	if r.buf != nil && !r.resume(b, &r.Method, &r.Target) {
		return 0, r.overdue(b, l)
	}
	pos := r.pos
	if !r.started {
		next, bad := r.readLine(b, pos, l)
		if bad != sound {
			return 0, bad
		}
		if next == 0 {
			return 0, r.overdue(b, l)
		}
		pos, r.started = next, true
	}
	n, bad := r.lines(b, pos, l)
	switch {
	case bad != sound:
		return 0, bad
	case n == 0:
		return 0, r.overdue(b, l)
	case n > l.MaxHead:
		return 0, flawHeadTooLarge
	}
	r.buf = nil
	return n, r.finish(l.AnyHost)
}

// overdue is asked when b holds no whole head.
func (r *Request) overdue(b []byte, l *Limits) flaw {
	if !r.started {
		line := len(b) - r.pos
		if line > 0 && b[len(b)-1] == '\r' {
			line--
		}
		if line > l.MaxRequestLine {
			return flawLineTooLong
		}
	}
	if len(b) > l.MaxHead {
		return flawHeadTooLarge
	}
	return sound
}

// readLine parses the request line of b at pos and returns where the next line begins, or 0.
func (r *Request) readLine(b []byte, pos int, l *Limits) (next int, _ flaw) {
	if pos == 0 && len(b) > 0 && b[0] == '\r' {
		if len(b) == 1 {
			r.pause(b, 0)
			return 0, sound
		}
		if b[1] != '\n' {
			return 0, flawBareCR
		}
		if len(b) == 2 {
			r.pause(b, 0)
			return 0, sound
		}
		pos = 2
		if b[2] == '\r' {
			return 0, flawBlankLines
		}
	}
	i := skip(b, pos, tokenByte)
	if i == 0 && len(b) > 0 && b[0] == tlsHandshake {
		return 0, flawTLS
	}
	if i-pos > maxMethod {
		return 0, flawMethodTooLong
	}
	if i == len(b) {
		r.pause(b, pos)
		return 0, sound
	}
	if b[i] != ' ' || i == pos {
		return 0, flawMethod
	}
	r.Method = b[pos:i]
	if equalFold(r.Method, "connect") {
		return 0, flawConnect
	}
	start := i + 1
	i = skipTarget(b, start)
	if i == len(b) {
		r.pause(b, pos)
		return 0, sound
	}
	if b[i] != ' ' || i == start {
		if b[i] == '\r' || b[i] == '\n' {
			return 0, flawVersionText
		}
		return 0, flawTarget
	}
	r.Target = b[start:i]
	lf := bytes.IndexByte(b[i:], '\n')
	if lf < 0 {
		if len(b)-i > len(" HTTP/1.1\r") {
			return 0, flawVersionText
		}
		r.pause(b, pos)
		return 0, sound
	}
	version := b[i+1 : i+lf]
	if len(version) == 0 || version[len(version)-1] != '\r' {
		return 0, flawBareLF
	}
	version = version[:len(version)-1]
	if i+lf-1-pos > l.MaxRequestLine {
		return 0, flawLineTooLong
	}
	if bad := r.readVersion(version); bad != sound {
		return 0, bad
	}
	return i + lf + 1, sound
}

// readVersion sets Minor. HTTP/1.2 and above are refused as well: there will be none.
func (h *Head) readVersion(v []byte) flaw {
	switch string(v) {
	case "HTTP/1.1":
		h.Minor = 1
		return sound
	case "HTTP/1.0":
		h.Minor = 0
		return sound
	}
	if len(v) == len("HTTP/1.1") && string(v[:5]) == "HTTP/" && v[6] == '.' &&
		class[v[5]]&class[v[7]]&digitByte != 0 {
		return flawVersion
	}
	return flawVersionText
}

// finish reads the meaning of a head that is whole.
func (r *Request) finish(anyHost bool) flaw {
	r.MaxForwards = -1
	if bad := r.readTarget(); bad != sound {
		return bad
	}
	if bad := r.readFields(anyHost); bad != sound {
		return bad
	}
	if bad := r.readConnection(); bad != sound {
		return bad
	}
	if bad := r.readFraming(); bad != sound {
		return bad
	}
	switch {
	case r.listed&optionClose != 0:
		r.Close = true
	case r.Minor == 0:
		r.KeepAliveToken = r.listed&optionKeepAlive != 0
		r.Close = !r.KeepAliveToken
	}
	if r.Minor == 0 || r.Framing == NoBody {
		r.Expect100 = false // RFC 9110 section 10.1.1
	}
	if r.listed&optionUpgrade != 0 && r.Minor == 1 {
		return r.readUpgrade()
	}
	return sound
}

func (r *Request) readFields(anyHost bool) flaw {
	hosts, keys := 0, 0
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.ID {
		case Other:
		case Host:
			if hosts++; hosts > 1 {
				return flawTwoHosts
			}
			if !validHost(f.Value) {
				if !anyHost {
					return flawHost
				}
				r.OddHost = r.Host == nil // else that of the target holds
				continue
			}
			if r.Host == nil {
				r.Host = f.Value // the target's own authority goes first, RFC 9112 section 3.2.2
			}
		case Expect:
			if !equalFold(f.Value, "100-continue") {
				return flawExpect
			}
			r.Expect100 = true
		case Origin:
			if r.Origin != nil {
				return flawRepeated
			}
			r.Origin = f.Value
		case SecFetchSite:
			if r.SecFetchSite != nil {
				return flawRepeated
			}
			r.SecFetchSite = f.Value
		case AccessControlRequestMethod:
			r.AccessControlRequestMethod = f.Value
		case Authorization, ProxyAuthorization:
			scheme := f.Value[:skip(f.Value, 0, tokenByte)]
			r.ConnectionAuth = r.ConnectionAuth || connectionBound(scheme)
		case IdempotencyKey:
			keys++
			r.Idempotency = keys == 1 && len(f.Value) > 0
		case MaxForwards:
			if string(r.Method) != "OPTIONS" && string(r.Method) != "TRACE" {
				continue
			}
			n, ok := decimal(f.Value)
			if !ok {
				return flawMaxForwards
			}
			if r.MaxForwards >= 0 {
				return flawRepeated
			}
			r.MaxForwards = int(min(n, 1<<20))
		}
	}
	if hosts == 0 && r.Minor == 1 {
		return flawNoHost
	}
	return sound
}

func (r *Request) IsGET() bool  { return string(r.Method) == "GET" }
func (r *Request) IsHEAD() bool { return string(r.Method) == "HEAD" }

// Safe is about the method alone, RFC 9110 section 9.2.1.
func (r *Request) Safe() bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// Idempotent is about the method alone, RFC 9110 section 9.2.2; see also Idempotency.
func (r *Request) Idempotent() bool {
	switch string(r.Method) {
	case "PUT", "DELETE":
		return true
	}
	return r.Safe()
}
