package logging

import (
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// lineSink writes lines to stderr or wherever it leads.
type lineSink struct {
	w      io.Writer
	format func(dst []byte, r *record, timed bool) []byte
	marks  bool // w is a stream of the journal: each line begins with its priority, and the journal adds the time
	buf    []byte
}

func (s *lineSink) write(batch []record) (lost int) {
	s.buf = s.buf[:0]
	for i := range batch {
		start := len(s.buf)
		s.buf = s.format(s.buf, &batch[i], !s.marks)
		if s.marks {
			s.buf = markLines(s.buf, start, int(batch[i].priority()))
		}
	}
	_, err := s.w.Write(s.buf)
	if cap(s.buf) > 64<<10 {
		s.buf = nil
	}
	if err != nil {
		return len(batch)
	}
	return 0
}

// markLines puts "<priority>" before each line of b from start on.
func markLines(b []byte, start, priority int) []byte {
	lines := string(b[start:])
	b = b[:start]
	for line := range strings.Lines(lines) {
		b = append(b, '<', byte('0'+priority), '>')
		b = append(b, line...)
	}
	return b
}

func (s *lineSink) interrupt() {
	if d, ok := s.w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Unix(1, 0)) // a file that has no deadlines goes on blocking
	}
}

func (s *lineSink) close() {}

// appendText is for people: time, level, message and what more there is, as key=value. Values of several lines follow
// on lines of their own, each after a tab, so that none of them looks like a record.
func appendText(dst []byte, r *record, timed bool) []byte {
	if timed {
		dst = appendTime(dst, r.time, 3)
		dst = append(dst, ' ')
		dst = append(dst, levelWord(r.level)...)
		dst = append(dst, ' ')
	}
	dst = appendSentence(dst, r)
	return append(dst, '\n')
}

// appendTime is RFC 3339 with that many digits behind the second, one at least.
func appendTime(dst []byte, t time.Time, digits int) []byte {
	dst = t.AppendFormat(dst, time.RFC3339) // the one layout that is quick
	var zone [len("+00:00")]byte
	end := len(dst) - 1
	if dst[end] != 'Z' {
		end = len(dst) - len(zone)
	}
	n := copy(zone[:], dst[end:])
	dst = append(dst[:end], '.')
	for rest, unit := t.Nanosecond(), 100_000_000; digits > 0; digits-- {
		dst = append(dst, byte('0'+rest/unit))
		rest, unit = rest%unit, unit/10
	}
	return append(dst, zone[:n]...)
}

func levelWord(l hclog.Level) string {
	switch {
	case l >= hclog.Error:
		return "ERROR"
	case l == hclog.Warn:
		return "WARN "
	case l == hclog.Debug:
		return "DEBUG"
	case l == hclog.Trace:
		return "TRACE"
	}
	return "INFO "
}

// appendSentence appends the part of a record that is for people, without time and level. What to do about it comes last.
func appendSentence(dst []byte, r *record) []byte {
	_, message := r.identity()
	dst = append(dst, message...)
	if s := r.exchange.Summary; s != "" {
		dst = append(dst, ": "...)
		dst = append(dst, s...)
	}
	var room [24]field
	fields := r.appendFields(room[:0])
	later := false
	for i := range fields {
		f := &fields[i]
		if f.key == "summary" {
			continue
		}
		word := isWord(f.text)
		if !word && strings.IndexByte(f.text, '\n') >= 0 {
			later = true
			continue
		}
		dst = append(dst, ' ')
		if f.unit == microseconds {
			dst = append(dst, "duration="...)
			dst = append(dst, (time.Duration(f.number) * time.Microsecond).String()...)
			continue
		}
		dst = append(dst, f.key...)
		dst = append(dst, '=')
		switch {
		case f.unit == count:
			dst = strconv.AppendInt(dst, f.number, 10)
		case word:
			dst = append(dst, f.text...)
		default:
			dst = appendQuoted(dst, f.text)
		}
	}
	if !later {
		return dst
	}
	for i := range fields {
		f := &fields[i]
		if strings.IndexByte(f.text, '\n') < 0 {
			continue
		}
		dst = append(dst, "\n\t"...)
		dst = append(dst, f.key...)
		dst = append(dst, ':')
		for line := range strings.SplitSeq(strings.TrimSuffix(f.text, "\n"), "\n") {
			dst = append(dst, "\n\t"...)
			dst = append(dst, line...)
		}
	}
	return dst
}

// isWord tells whether s reads back as one word.
func isWord(s string) bool {
	for i := range len(s) {
		switch s[i] {
		case ' ', '\t', '\n', '"', '=':
			return false
		}
	}
	return s != ""
}

// appendQuoted is for what would not read back as one word.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// appendJSON is one object on one line.
func appendJSON(dst []byte, r *record, _ bool) []byte {
	event, message := r.identity()
	dst = append(dst, `{"time":"`...)
	dst = appendTime(dst, r.time.UTC(), 6)
	dst = append(dst, `","level":"`...)
	for _, c := range []byte(strings.TrimSpace(levelWord(r.level))) {
		dst = append(dst, c-'A'+'a')
	}
	dst = append(dst, `","message":`...)
	dst = appendString(dst, message)
	if event != NoEvent {
		dst = append(dst, `,"event":"`...)
		dst = append(dst, event.String()...)
		dst = append(dst, '"')
	}
	var room [24]field
	for _, f := range r.appendFields(room[:0]) {
		dst = append(dst, ',')
		dst = appendString(dst, f.key)
		dst = append(dst, ':')
		if f.unit == words {
			dst = appendString(dst, f.text)
		} else {
			dst = strconv.AppendInt(dst, f.number, 10)
		}
	}
	return append(dst, "}\n"...)
}

// appendString appends a JSON string (RFC 8259 section 7) for s, which is UTF-8.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0 // of s, in pieces that need no escape
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}
