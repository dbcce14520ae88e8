package logging

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Access is which exchanges leave a record: log.access.
type Access uint8

const (
	AccessErrors Access = iota // faults, 5xx and slow ones
	AccessAll
	AccessOff
)

// ParseAccess reads the value of log.access; "" is "errors".
func ParseAccess(s string) (Access, error) {
	switch s {
	case "all":
		return AccessAll, nil
	case "errors", "":
		return AccessErrors, nil
	case "off":
		return AccessOff, nil
	}
	return AccessErrors, fmt.Errorf("access %q is none of all, errors, off", s)
}

// Policy decides which exchanges are recorded, and how much of them. It belongs to a generation and is never changed.
type Policy struct {
	Access Access
	Path   bool          // record paths; query strings never are
	Slow   time.Duration // exchanges that took at least this long are slow; 0: none is
}

// Wants tells whether an exchange leaves a record. It costs next to nothing, so that whoever carries exchanges fills in an
// ExchangeRecord only when it is true.
func (p *Policy) Wants(status int, fault bool, d time.Duration) bool {
	return p.Access == AccessAll || p.Access == AccessErrors && (fault || status >= 500 || p.Slow > 0 && d >= p.Slow)
}

// ExchangeRecord is what the log says of one exchange.
type ExchangeRecord struct {
	Policy *Policy // nil: everything is recorded

	Time       time.Time // when it ended; zero: now
	Duration   time.Duration
	Generation uint64
	Listener   string // this and the next two are names from the configuration
	Route      string
	Upstream   string
	RequestID  []byte // this and the next ones are copied; they may be views of a buffer
	Method     []byte
	Host       []byte
	Path       []byte
	Status     int // what the caller was answered; 499: it had gone

	Fault   string // token; "" when the upstream answered
	Blame   string // "caller", "proxy" or "upstream"
	Summary string // what the fault is, in a sentence
	Fix     string // what to do about it, in a sentence
	Err     error  // what happened, for the log only

	Caller            string // who called, as far as it is known
	Unit              string // the caller's systemd unit, likewise
	BytesIn, BytesOut int64  // bodies: from the caller, to the caller
	Retries           int    // tries after the first
}

func (r *ExchangeRecord) slow() bool {
	return r.Policy != nil && r.Policy.Slow > 0 && r.Duration >= r.Policy.Slow
}

// level: what we or the configuration could not do is an error, what the upstream or a limit did a warning, what the caller
// did or got is information.
func (r *ExchangeRecord) level() hclog.Level {
	switch {
	case r.Fault == "" || r.Blame == "caller":
		return hclog.Info
	case r.Blame == "proxy" && r.Status != 503:
		return hclog.Error
	default:
		return hclog.Warn
	}
}

// Exchange records how an exchange ended. It never blocks: when the log cannot be written as fast as it grows, records are
// dropped and counted. Nothing of r is kept but its strings, and an exchange that was answered costs no allocation of its own.
func (l *Log) Exchange(r *ExchangeRecord) {
	level := r.level()
	if !l.enabled(level) || r.Policy != nil && !r.Policy.Wants(r.Status, r.Fault != "", r.Duration) {
		return
	}
	now := r.Time
	if now.IsZero() {
		now = time.Now()
	}
	rec := record{time: now, level: level, kind: exchangeFinished}
	if r.Fault != "" {
		rec.kind = exchangeFailed
		if r.Policy == nil || r.Policy.Access != AccessAll { // else every request is to have its record
			admitted, sum := l.bursts.admit(r, level, now)
			if sum != nil {
				l.queue.put(sum)
			}
			if !admitted {
				return
			}
		}
	}
	rec.exchange = *r
	if r.Err != nil {
		rec.err = escape(r.Err.Error(), maxErrorBytes)
		rec.exchange.Err = nil
	}
	l.blocks.keep(&rec)
	l.queue.put(&rec)
}

// blockBytes is what blocks takes at a time: enough for a hundred usual records, or a few of the longest.
const blockBytes = 16 << 10

// blocks has room for what others wrote, until the record was written: pieces of one block after the other, each of which the
// garbage collector takes back when the last record with a piece of it is gone.
type blocks struct {
	mu  sync.Mutex // guards now
	now strings.Builder
}

// keep copies what others wrote into r, escaped and cut.
func (b *blocks) keep(r *record) {
	x := &r.exchange
	if x.Policy != nil && !x.Policy.Path {
		x.Path = nil
	} else if i := bytes.IndexByte(x.Path, '?'); i >= 0 {
		x.Path = x.Path[:i]
	}
	x.Caller, x.Unit = escape(x.Caller, maxWrittenBytes), escape(x.Unit, maxWrittenBytes)
	written := [...]*[]byte{&x.RequestID, &x.Method, &x.Host, &x.Path}
	n := 0
	for _, v := range written {
		*v = escapeBytes(*v, maxWrittenBytes)
		n += len(*v)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.Cap()-b.now.Len() < n {
		b.now.Reset() // what was cut from it stays
		b.now.Grow(blockBytes)
	}
	for i, s := range [...]*string{&r.requestID, &r.method, &r.host, &r.path} {
		start := b.now.Len()
		b.now.Write(*written[i])
		*s = b.now.String()[start:]
		*written[i] = nil
	}
}
