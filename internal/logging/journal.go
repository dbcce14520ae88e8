package logging

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	journalTry     = 250 * time.Millisecond // how long one attempt may wait before Close is looked for
	maxRecordBytes = 128 << 10              // less than a socket's default buffer, so that no record needs a file
	maxKeyBytes    = 64                     // journald ignores longer names
)

// journalSink sends records with their fields to journald in its native protocol, a datagram each. journal.Send of go-systemd
// has no deadline, and its socket is not connected: the kernel does not tell such a socket when a receiver whose queue
// others had filled has room again.
type journalSink struct {
	path  string
	hurry *atomic.Bool
	conn  *net.UnixConn   // nil after an error, until the next record
	raw   syscall.RawConn // of conn
	buf   []byte          // the datagrams of a batch, one after the other
	ends  []int           // of each of them
	post  post
}

func newJournalSink(path string, hurry *atomic.Bool) (*journalSink, error) {
	s := &journalSink{path: path, hurry: hurry}
	if err := s.dial(); err != nil {
		return nil, fmt.Errorf("log to the journal: %w", err)
	}
	return s, nil
}

func (s *journalSink) dial() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	if s.raw, err = conn.SyscallConn(); err != nil {
		_ = conn.Close()
		return err
	}
	s.conn = conn
	return nil
}

func (s *journalSink) write(batch []record) (lost int) {
	s.buf, s.ends = s.buf[:0], s.ends[:0]
	for i := range batch {
		s.buf = appendDatagram(s.buf, &batch[i])
		s.ends = append(s.ends, len(s.buf))
	}
	s.post.load(s.buf, s.ends)
	for done := 0; done < len(s.ends); {
		n := s.send(done)
		if n == 0 { // this one is not to be sent
			lost++
			n = 1
		}
		done += n
	}
	if cap(s.buf) > 64<<10 {
		s.buf, s.post = nil, post{}
	}
	return lost
}

// send sends datagrams from the one with that number on, and tells how many. It waits for as long as journald does not read,
// unless Close is in a hurry. A journald that was replaced is found again.
func (s *journalSink) send(first int) (n int) {
	redialed := false
	for !s.hurry.Load() {
		if s.conn == nil {
			if s.dial() != nil {
				return 0
			}
			redialed = true
		}
		err := s.conn.SetWriteDeadline(time.Now().Add(journalTry))
		if err == nil {
			n, err = s.post.send(s.raw, first)
		}
		switch {
		case err == nil:
			return n
		case errors.Is(err, os.ErrDeadlineExceeded): // nobody reads: try again
		default:
			s.close()
			if redialed {
				return 0
			}
		}
	}
	return 0
}

// interrupt has nothing to do: no attempt lasts longer than journalTry.
func (s *journalSink) interrupt() {}

func (s *journalSink) close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// appendDatagram appends the datagram for r.
func appendDatagram(b []byte, r *record) []byte {
	event, _ := r.identity()
	begin := len(b)
	b = append(b, "MESSAGE="...)
	start := len(b)
	b = appendSentence(b, r)
	// All that an answered request says of itself is a word by now. Anything else may have lines, or too many of them.
	if m := b[start:]; r.kind != exchangeFinished && !isPlain(m, false) || len(m) > maxFieldBytes {
		b = appendJournalText(b[:start-1], tidy(string(m), maxFieldBytes))
	} else {
		b = append(b, '\n')
	}
	b = append(b, "PRIORITY="...)
	b = append(b, byte('0'+r.priority()))
	b = append(b, "\nSYSLOG_IDENTIFIER=mtls-proxy\n"...)
	if id := event.MessageID(); id != "" {
		b = append(b, "MESSAGE_ID="...)
		b = append(b, id...)
		b = append(b, "\nMTLS_EVENT="...)
		b = append(b, event.String()...)
		b = append(b, '\n')
	}
	var room [24]field
	for _, f := range r.appendFields(room[:0]) {
		if len(b)-begin+maxFieldBytes+2*maxKeyBytes > maxRecordBytes {
			break
		}
		b = appendJournalName(b, f.key)
		if f.unit == words {
			b = appendJournalText(b, f.text)
			continue
		}
		b = append(b, '=')
		b = strconv.AppendInt(b, f.number, 10)
		b = append(b, '\n')
	}
	return b
}

// appendJournalName makes the name of a field from the key of a fact: MTLS_, then capitals, digits and underscores alone,
// at most 64 bytes in all, which is what journald accepts.
func appendJournalName(dst []byte, key string) []byte {
	dst = append(dst, "MTLS_"...)
	for i := 0; i < len(key) && i < maxKeyBytes-len("MTLS_"); i++ {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z':
			dst = append(dst, c-'a'+'A')
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			dst = append(dst, c)
		default:
			dst = append(dst, '_')
		}
	}
	return dst
}

// appendJournalText appends the value of a field behind its name. Where it has lines, its length stands before it: 64 bits
// with the lowest byte first.
func appendJournalText(dst []byte, value string) []byte {
	if strings.IndexByte(value, '\n') < 0 {
		dst = append(dst, '=')
	} else {
		dst = append(dst, '\n')
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(value)))
	}
	dst = append(dst, value...)
	return append(dst, '\n')
}
