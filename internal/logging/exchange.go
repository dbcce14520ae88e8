package logging

import (
	"fmt"
	"strings"
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
	RequestID  string
	Status     int // what the caller was answered; 499: it had gone

	Fault   string // token; "" when the upstream answered
	Blame   string // "caller", "proxy" or "upstream"
	Summary string // what the fault is, in a sentence
	Fix     string // what to do about it, in a sentence
	Err     error  // what happened, for the log only

	Caller            string // who called, as far as it is known
	Unit              string // the caller's systemd unit, likewise
	Method            string
	Host              string
	Path              string
	BytesIn, BytesOut int64 // bodies: from the caller, to the caller
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
// dropped and counted. Nothing of r is kept; strings of it that may be views of a buffer are copied.
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
		admitted, sum := l.bursts.admit(r, level, now)
		if sum != nil {
			l.queue.put(sum)
		}
		if !admitted {
			return
		}
	}
	rec.exchange = *r
	rec.exchange.keep()
	if r.Err != nil {
		rec.err = escape(r.Err.Error(), maxErrorBytes)
	}
	rec.exchange.Err = nil
	l.queue.put(&rec)
}

// keep copies what others wrote, escaped and cut, in one allocation where nothing had to be escaped.
func (r *ExchangeRecord) keep() {
	if r.Policy != nil && !r.Policy.Path {
		r.Path = ""
	} else if i := strings.IndexByte(r.Path, '?'); i >= 0 {
		r.Path = r.Path[:i]
	}
	written := [...]*string{&r.RequestID, &r.Caller, &r.Unit, &r.Method, &r.Host, &r.Path}
	n := 0
	for _, s := range written {
		*s = escape(*s, maxWrittenBytes)
		n += len(*s)
	}
	var b strings.Builder
	b.Grow(n)
	for _, s := range written {
		b.WriteString(*s)
	}
	all := b.String()
	for _, s := range written {
		*s, all = all[:len(*s)], all[len(*s):]
	}
}
