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
	"time"
)

const (
	journalTry     = 250 * time.Millisecond // how long one attempt may wait before Close is looked for
	maxRecordBytes = 128 << 10              // less than a socket's default buffer, so that no record needs a file
	maxKeyBytes    = 64                     // journald ignores longer names
)

// journalSink sends records with their fields to journald in its native protocol. journal.Send of go-systemd has no
// deadline, and its socket is not connected: the kernel does not tell such a socket when a receiver whose queue
// others had filled has room again.
type journalSink struct {
	path  string
	hurry *atomic.Bool
	conn  *net.UnixConn // nil after an error, until the next record
	buf   []byte
	body  []byte
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
	s.conn = conn
	return nil
}

func (s *journalSink) write(batch []record) (lost int) {
	for i := range batch {
		s.compose(&batch[i])
		if err := s.send(); err != nil {
			lost++
		}
	}
	if cap(s.buf)+cap(s.body) > 64<<10 {
		s.buf, s.body = nil, nil
	}
	return lost
}

// send waits for as long as journald does not read, unless Close is in a hurry. A journald that was replaced is found again.
func (s *journalSink) send() error {
	redialed := false
	for {
		if s.hurry.Load() {
			return os.ErrDeadlineExceeded
		}
		if s.conn == nil {
			if err := s.dial(); err != nil {
				return err
			}
			redialed = true
		}
		err := s.conn.SetWriteDeadline(time.Now().Add(journalTry))
		if err == nil {
			_, err = s.conn.Write(s.buf)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded): // nobody reads: try again
		default:
			s.close()
			if redialed {
				return err
			}
		}
	}
}

// interrupt has nothing to do: no attempt lasts longer than journalTry.
func (s *journalSink) interrupt() {}

func (s *journalSink) close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// compose makes the datagram for r.
func (s *journalSink) compose(r *record) {
	event, _ := r.identity()
	s.body = appendSentence(s.body[:0], r)
	b := s.buf[:0]
	b = appendJournalField(b, "MESSAGE", tidy(string(s.body), maxFieldBytes))
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
		if len(b)+maxFieldBytes+2*maxKeyBytes > maxRecordBytes {
			break
		}
		var name [maxKeyBytes]byte
		key := string(appendJournalName(name[:0], f.key))
		if f.unit == words {
			b = appendJournalField(b, key, f.text)
			continue
		}
		b = append(b, key...)
		b = append(b, '=')
		b = strconv.AppendInt(b, f.number, 10)
		b = append(b, '\n')
	}
	s.buf = b
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

// appendJournalField appends a field whose value may have lines: then its length, 64 bits with the lowest byte first,
// stands before it.
func appendJournalField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	if strings.IndexByte(value, '\n') < 0 {
		dst = append(dst, '=')
	} else {
		dst = append(dst, '\n')
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(value)))
	}
	dst = append(dst, value...)
	return append(dst, '\n')
}
