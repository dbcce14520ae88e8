package http1

import "bytes"

// ChunkReader decodes a body in chunks, RFC 9112 section 7.1, as strictly as that allows. Its zero
// value is ready; Reset makes it ready for another body.
type ChunkReader struct {
	// Response accepts blanks behind a size, with which some servers pad it, and extensions of any visible bytes. Neither
	// passes on: chunks are framed anew.
	Response bool

	state    chunkState
	left     int64 // bytes of the current chunk's data to come
	digits   uint8 // of its size, so far
	overhead int64 // bytes of extensions that data has not paid for
	padded   bool  // blanks precede: ";" or "=" must follow

	section  []byte // the trailer section, when it is not empty
	trailers []Field
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkBlank
	chunkExtension // of any visible bytes
	chunkName      // of an extension: blanks or its first byte
	chunkNameRest  // within the name
	chunkNameEnd   // blanks behind the name
	chunkValue     // behind "=": blanks or the value's first byte
	chunkValueRest // within a value that is a token
	chunkQuoted    // within a quoted string
	chunkEscaped   // behind a backslash in it
	chunkValueEnd  // behind a quoted string, or blanks behind a value
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailers
	chunkEndLF
	chunkDone
)

const (
	// maxSizeDigits is of an int64; leading zeros count.
	maxSizeDigits = 16
	// maxOverhead is how many bytes of extensions a body may have beyond what its data allows.
	maxOverhead = 16 << 10
	// Each chunk allows this much extension, and as many bytes more as it has data.
	freeOverhead = 16
)

// Reset keeps Response and capacities only.
func (d *ChunkReader) Reset() {
	*d = ChunkReader{Response: d.Response, section: d.section[:0], trailers: d.trailers[:0]}
}

// Done reports that the whole body, its trailer section included, was consumed.
func (d *ChunkReader) Done() bool { return d.state == chunkDone }

// Trailers returns the fields of the trailer section once Done, without those that have no business there: framing,
// routing, authentication, content and hop-by-hop fields (RFC 9110 section 6.5.1). They lie in d until Reset.
func (d *ChunkReader) Trailers() []Field { return d.trailers }

// Next consumes the first n bytes of b: framing, and then at most one run of data, which is a slice
// of b. n is 0 when b is empty or the body is done, never otherwise. Only MaxHead and MaxFields of l count, for the
// trailer section; l may be nil. After an error d is of no more use.
func (d *ChunkReader) Next(b []byte, l *Limits) (data []byte, n int, err error) {
	i := 0
	for i < len(b) && d.state != chunkDone {
		if d.state == chunkData {
			run := b[i:]
			if int64(len(run)) > d.left {
				run = run[:d.left]
			}
			if d.left -= int64(len(run)); d.left == 0 {
				d.state = chunkDataCR
			}
			return run, i + len(run), nil
		}
		var bad flaw
		if d.state == chunkTrailers {
			limits := l.orDefault()
			var used int
			used, bad = d.readTrailers(b[i:], &limits)
			i += used
		} else {
			bad = d.step(b[i])
			i++
		}
		if bad != sound {
			return nil, 0, &flaws[bad]
		}
	}
	return nil, i, nil
}

// step consumes one byte of framing.
func (d *ChunkReader) step(c byte) flaw {
	switch d.state {
	case chunkSize:
		if class[c]&hexByte != 0 {
			if d.digits++; d.digits > maxSizeDigits || d.left > 1<<59-1 {
				return flawChunkSizeRange
			}
			d.left = d.left<<4 | int64(hexValue(c))
			return sound
		}
		if d.digits == 0 {
			return flawChunkSize
		}
		return d.afterSize(c)
	case chunkBlank:
		if c == '\r' && !d.Response {
			return flawChunkExtension
		}
		return d.afterSize(c)
	case chunkExtension:
		if d.overhead++; d.overhead > maxOverhead {
			return flawChunkExtension
		}
		switch {
		case c == '\r':
			d.state = chunkSizeLF
		case class[c]&valueByte == 0:
			return flawChunkExtension
		}
	case chunkName, chunkNameRest, chunkNameEnd, chunkValue, chunkValueRest, chunkQuoted, chunkEscaped, chunkValueEnd:
		return d.extension(c)
	case chunkSizeLF:
		if c != '\n' {
			return flawChunkSize
		}
		d.overhead = max(0, d.overhead-freeOverhead-d.left)
		d.digits = 0
		d.state = chunkData
		if d.left == 0 {
			d.state = chunkTrailers
		}
	case chunkDataCR:
		if c != '\r' {
			return flawChunkEnd
		}
		d.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return flawChunkEnd
		}
		d.state = chunkSize
	case chunkEndLF:
		if c != '\n' {
			return flawTrailers
		}
		d.state = chunkDone
	}
	return sound
}

// afterSize consumes what stands between a size and its CRLF or extensions.
func (d *ChunkReader) afterSize(c byte) flaw {
	switch {
	case c == '\r':
		d.state = chunkSizeLF
	case c == ';':
		if d.state = chunkName; d.Response {
			d.state = chunkExtension
		}
	case isSpace(c):
		d.state = chunkBlank
		if d.overhead++; d.overhead > maxOverhead {
			return flawChunkExtension
		}
	default:
		return flawChunkSize
	}
	return sound
}

// extension consumes one byte of extensions, or the CR that ends them. Blanks may stand around ";" and "=" only.
func (d *ChunkReader) extension(c byte) flaw {
	if d.overhead++; d.overhead > maxOverhead {
		return flawChunkExtension
	}
	token := class[c]&tokenByte != 0
	state := d.state
	switch {
	case state == chunkEscaped && class[c]&valueByte != 0:
		d.state = chunkQuoted
	case state == chunkQuoted && c == '"':
		d.state = chunkValueEnd
	case state == chunkQuoted && c == '\\':
		d.state = chunkEscaped
	case state == chunkQuoted && class[c]&valueByte != 0:
	case state == chunkEscaped, state == chunkQuoted:
		return flawChunkExtension

	case (state == chunkName || state == chunkNameRest) && token:
		d.state = chunkNameRest
	case (state == chunkValue || state == chunkValueRest) && token:
		d.state = chunkValueRest
	case state == chunkValue && c == '"':
		d.state = chunkQuoted
	case (state == chunkName || state == chunkValue) && isSpace(c):
	case state == chunkName, state == chunkValue:
		return flawChunkExtension

	case c == ';':
		d.state, d.padded = chunkName, false
	case c == '=' && (state == chunkNameRest || state == chunkNameEnd):
		d.state, d.padded = chunkValue, false
	case c == '\r' && !d.padded:
		d.state = chunkSizeLF
	case isSpace(c):
		d.padded = true
		if state == chunkNameRest {
			d.state = chunkNameEnd
		} else if state == chunkValueRest {
			d.state = chunkValueEnd
		}
	default:
		return flawChunkExtension
	}
	return sound
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return toLower[c] - 'a' + 10
}

// readTrailers consumes bytes of the trailer section up to the CR of its empty line, and parses it then.
func (d *ChunkReader) readTrailers(b []byte, l *Limits) (used int, _ flaw) {
	for used < len(b) {
		if n := len(d.section); b[used] == '\r' && (n == 0 || d.section[n-1] == '\n') {
			d.state = chunkEndLF
			return used + 1, d.parseTrailers(l)
		}
		line := b[used:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		if len(d.section)+len(line) > l.MaxHead {
			return 0, flawTrailersTooLarge
		}
		d.section = append(d.section, line...)
		used += len(line)
		if n := len(d.section); d.section[n-1] == '\n' && (n == 1 || d.section[n-2] != '\r') {
			return 0, flawTrailers
		}
	}
	return used, sound
}

func (d *ChunkReader) parseTrailers(l *Limits) flaw {
	if len(d.section) == 0 {
		return sound
	}
	d.section = append(d.section, "\r\n"...)
	h := Head{Fields: d.trailers[:0]}
	n, bad := h.lines(d.section, 0, l)
	switch {
	case bad == flawTooManyFields:
		return flawTrailersTooLarge
	case bad != sound, n != len(d.section):
		return flawTrailers
	}
	d.trailers = h.Fields[:0]
	for _, f := range h.Fields {
		if _, traits := lookup(f.Name); traits&noTrailer == 0 {
			d.trailers = append(d.trailers, f)
		}
	}
	return sound
}

// AppendChunkHeader begins a chunk of n bytes, n > 0; behind them goes CRLF.
func AppendChunkHeader(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 0xf {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&0xf])
	}
	return append(dst, "\r\n"...)
}

// ChunkFrame is the most that AppendChunk appends besides the chunk's data.
const ChunkFrame = 20

// AppendChunk appends data, of which there is some, as one chunk.
func AppendChunk(dst, data []byte) []byte {
	dst = append(AppendChunkHeader(dst, len(data)), data...)
	return append(dst, "\r\n"...)
}

// AppendLastChunk ends a body in chunks.
func AppendLastChunk(dst []byte, trailers []Field) []byte {
	dst = append(dst, "0\r\n"...)
	for i := range trailers {
		dst = trailers[i].append(dst)
	}
	return append(dst, "\r\n"...)
}
