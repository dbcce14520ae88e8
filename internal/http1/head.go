package http1

import "bytes"

// Head is what requests and responses have in common. Its slices lie in the buffer given to Parse, Upgrade in Head itself.
type Head struct {
	Minor          uint8 // of HTTP/1.Minor: 0 or 1
	Fields         []Field
	Framing        Framing
	HasLength      bool   // Content-Length was there; of 0 too, and of a body that is not sent (HEAD, 304)
	ContentLength  int64  // its value, or 0
	Close          bool   // the sender closes the connection after this exchange, or we must
	Upgrade        []byte // what Upgrade lists, when it is in effect; see Request and Response
	ConnectionAuth bool   // NTLM or Negotiate is in play: the upstream's connection belongs to one caller from here on

	buf     []byte // what the last Parse was given, while more bytes are awaited
	pos     int    // where in it the unfinished line begins
	seen    int    // up to here that line has no LF
	started bool   // the first line is parsed
	used    bool   // there is something to reset

	has      uint64 // bit of every ID among Fields
	lengths  uint64 // lengthBit of all their names
	listed   uint8  // the Connection options with a meaning of their own
	options  []byte // the other ones, lower case, each with a comma behind it
	upgrades []byte // storage for Upgrade
}

// Connection options with a meaning of their own.
const (
	optionClose = 1 << iota
	optionKeepAlive
	optionUpgrade
)

// storage is what Reset keeps of a Head: the memory of its slices.
type storage struct {
	fields            []Field
	options, upgrades []byte
}

// keptFields bounds the room for fields that is kept for the next head.
const keptFields = 256

func (h *Head) take() storage {
	s := storage{h.Fields[:0], h.options[:0], h.upgrades[:0]}
	if cap(s.fields) > keptFields {
		s.fields = nil
	}
	return s
}

func (h *Head) give(s storage) { h.Fields, h.options, h.upgrades = s.fields, s.options, s.upgrades }

// Get returns the value of the first field that has the given ID.
func (h *Head) Get(id ID) (value []byte, ok bool) {
	if h.has&(1<<id) == 0 {
		return nil, false
	}
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			return h.Fields[i].Value, true
		}
	}
	return nil, false
}

// resume tells whether the line at h.pos can be complete by now, having looked only at bytes
// that are new. When the buffer was replaced, it moves what was parsed so far, and others, to b.
func (h *Head) resume(b []byte, others ...*[]byte) bool {
	if len(h.buf) > 0 && len(b) > 0 && (&h.buf[0] != &b[0] || cap(h.buf) != cap(b)) {
		for i := range h.Fields {
			f := &h.Fields[i]
			f.Name, f.Value = moved(f.Name, h.buf, b), moved(f.Value, h.buf, b)
		}
		for _, o := range others {
			*o = moved(*o, h.buf, b)
		}
	}
	h.buf = b
	if seen := h.seen; seen > h.pos && (seen >= len(b) || b[seen-1] != '\r' && bytes.IndexByte(b[seen:], '\n') < 0) {
		h.seen = max(seen, len(b))
		return false
	}
	return true
}

// pause notes that the line at pos is not complete in b.
func (h *Head) pause(b []byte, pos int) {
	h.buf, h.pos, h.seen = b, pos, len(b)
}

// moved is the place in to that s has in from. Only s's capacity is looked at, never the bytes of from.
func moved(s, from, to []byte) []byte {
	if s == nil {
		return nil
	}
	at := cap(from) - cap(s)
	return to[at : at+len(s)]
}

// lines parses field lines of b from pos on. It returns where the message's body begins, or 0
// when b ends before that; h.pos is then the start of the unfinished line.
func (h *Head) lines(b []byte, pos int, l *Limits) (end int, _ flaw) {
	for {
		i := skip(b, pos, tokenByte)
		if i == len(b) {
			h.pause(b, pos)
			return 0, sound
		}
		if b[i] != ':' || i == pos {
			if b[i] != '\r' || i > pos {
				return 0, nameFlaw(b, pos, i)
			}
			if i+1 == len(b) {
				h.pause(b, pos)
				return 0, sound
			}
			if b[i+1] != '\n' {
				return 0, flawBareCR
			}
			return i + 2, sound
		}
		name := b[pos:i]
		start := i + 1
		for start < len(b) && isSpace(b[start]) {
			start++
		}
		stop := skipValue(b, start)
		if stop+1 >= len(b) && (stop == len(b) || b[stop] == '\r') {
			h.pause(b, pos)
			return 0, sound
		}
		if b[stop] != '\r' || b[stop+1] != '\n' {
			return 0, valueFlaw(b[stop])
		}
		next := stop + 2
		for stop > start && isSpace(b[stop-1]) {
			stop--
		}
		if len(h.Fields) >= l.MaxFields {
			return 0, flawTooManyFields
		}
		f := Field{Name: name, Value: b[start:stop]}
		f.ID, _ = lookup(name)
		if start == i+2 && b[i+1] == ' ' && next == stop+2 {
			f.flags = plain
		}
		h.Fields = append(h.Fields, f)
		h.has |= 1 << f.ID
		h.lengths |= lengthBit(name)
		pos = next
	}
}

func nameFlaw(b []byte, pos, i int) flaw {
	switch {
	case isSpace(b[i]) && i == pos:
		return flawFold
	case isSpace(b[i]):
		return flawSpaceBeforeColon
	case b[i] == '\n':
		return flawBareLF
	}
	return flawFieldName
}

func valueFlaw(c byte) flaw {
	switch c {
	case '\n':
		return flawBareLF
	case '\r':
		return flawBareCR
	}
	return flawControl
}

const maxOptions = 64

// readConnection takes the Connection fields apart and marks the fields that they nominate.
func (h *Head) readConnection() flaw {
	if h.has&(1<<Connection) == 0 {
		return sound
	}
	count := 0
	for i := range h.Fields {
		if h.Fields[i].ID != Connection {
			continue
		}
		for rest := h.Fields[i].Value; rest != nil; {
			if count++; count > maxOptions {
				return flawConnectionLong
			}
			if string(rest) == "keep-alive" { // by far the most common, and worth a shortcut
				h.listed |= optionKeepAlive
				break
			}
			var option []byte
			option, rest = cutElement(rest)
			switch {
			case len(option) == 0:
			case equalFold(option, "close"):
				h.listed |= optionClose
			case equalFold(option, "keep-alive"):
				h.listed |= optionKeepAlive
			case equalFold(option, "upgrade"):
				h.listed |= optionUpgrade
			case !isToken(option):
				return flawConnection
			default:
				for _, c := range option {
					h.options = append(h.options, toLower[c])
				}
				h.options = append(h.options, ',')
			}
		}
	}
	if len(h.options) > 0 {
		for i := range h.Fields {
			if h.nominates(h.Fields[i].Name) {
				h.Fields[i].flags |= nominated
			}
		}
	}
	return sound
}

// nominates reports whether Connection lists name as an option without a meaning of its own.
func (h *Head) nominates(name []byte) bool {
	for rest := h.options; len(rest) > 0; {
		i := bytes.IndexByte(rest, ',')
		if equalFold(name, rest[:i]) {
			return true
		}
		rest = rest[i+1:]
	}
	return false
}

// readFraming finds out from Content-Length and Transfer-Encoding how long the body is; with
// neither, Framing stays NoBody. RFC 9112 section 6.3, in its strictest reading.
func (h *Head) readFraming() flaw {
	if h.has&(1<<ContentLength|1<<TransferEncoding) == 0 {
		return sound
	}
	coded := false
	for i := range h.Fields {
		switch f := &h.Fields[i]; f.ID {
		case ContentLength:
			if h.HasLength {
				return flawLengthRepeated
			}
			n, ok := decimal(f.Value)
			if !ok {
				return flawLength
			}
			h.HasLength, h.ContentLength = true, n
			if n > 0 {
				h.Framing = Length
			}
		case TransferEncoding:
			if coded {
				return flawCodingRepeated
			}
			coded = true
			if !equalFold(f.Value, "chunked") {
				return codingFlaw(f.Value)
			}
		}
	}
	switch {
	case !coded:
	case h.HasLength:
		return flawLengthAndCoding
	case h.Minor == 0:
		return flawCodingIn10
	default:
		h.Framing = Chunked
	}
	return sound
}

// codingFlaw is about a Transfer-Encoding that is not "chunked": a list of codings that we do not
// speak, or something that nobody can frame.
func codingFlaw(list []byte) flaw {
	chunked := false
	for rest := list; rest != nil; {
		var coding []byte
		coding, rest = cutElement(rest)
		if chunked || !isToken(coding) {
			return flawCoding
		}
		chunked = equalFold(coding, "chunked")
	}
	return flawCodingUnknown
}

// readUpgrade gathers the protocols of all Upgrade fields but h2c, HTTP and TLS of any version. Those concern the
// connection to the next hop, and would hide every later request of it from us.
func (h *Head) readUpgrade() flaw {
	if h.has&(1<<Upgrade) == 0 {
		return sound
	}
	for i := range h.Fields {
		if h.Fields[i].ID != Upgrade {
			continue
		}
		for rest := h.Fields[i].Value; rest != nil; {
			var protocol []byte
			protocol, rest = cutElement(rest)
			if len(protocol) == 0 {
				continue
			}
			name, version, found := bytes.Cut(protocol, []byte("/"))
			if equalFold(name, "h2c") || equalFold(name, "http") || equalFold(name, "tls") {
				continue
			}
			if !isToken(name) || found && !isToken(version) {
				return flawUpgrade
			}
			if len(h.upgrades) > 0 {
				h.upgrades = append(h.upgrades, ", "...)
			}
			h.upgrades = append(h.upgrades, protocol...)
		}
	}
	if len(h.upgrades) > 0 {
		h.Upgrade = h.upgrades
	}
	return sound
}

// UpgradeOffered reports whether every protocol of chosen, from a 101, is among those of offer.
func UpgradeOffered(offer, chosen []byte) bool {
	if len(chosen) == 0 {
		return false
	}
	for rest := chosen; rest != nil; {
		var want []byte
		want, rest = cutElement(rest)
		found := false
		for more := offer; more != nil && !found; {
			var have []byte
			have, more = cutElement(more)
			found = len(want) > 0 && bytes.EqualFold(have, want)
		}
		if !found {
			return false
		}
	}
	return true
}

// connectionBound reports whether an authentication field names a scheme that authenticates the
// connection instead of the request. Any word of the value counts.
func connectionBound(value []byte) bool {
	for i := 0; i < len(value); {
		end := skip(value, i, tokenByte)
		switch word := value[i:end]; {
		case equalFold(word, "ntlm"), equalFold(word, "negotiate"), equalFold(word, "kerberos"):
			return true
		}
		i = end + 1
	}
	return false
}

// KeepTrailers drops from a trailer section, in place, the fields that this message's Connection
// nominates (RFC 9110 section 7.6.1) and those that e removes or sets; e may be nil. The head's buffer may be
// gone by then.
func (h *Head) KeepTrailers(trailers []Field, e *Edits) []Field {
	if len(h.options) == 0 && e == nil {
		return trailers
	}
	kept := trailers[:0]
	for _, f := range trailers {
		if !h.nominates(f.Name) && !e.drops(f.Name) {
			kept = append(kept, f)
		}
	}
	return kept
}
