package logging

import (
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hashicorp/go-hclog"
)

// kind is the shape of a record.
type kind uint8

const (
	ordinary kind = iota
	losses        // as ordinary; its first field is how many
	exchangeFinished
	exchangeFailed
)

// record is one entry of the log, not yet formatted.
type record struct {
	time    time.Time
	level   hclog.Level
	kind    kind
	seq     uint64 // order of arrival, given by the queue
	event   Event  // of an ordinary record
	message string // of an ordinary record
	fields  []field

	exchange ExchangeRecord // of the other kinds; its views are in what follows, escaped
	err      string

	requestID, method, host, path string
}

// field is a fact of a record. Its unit tells whether text or number is its value.
type field struct {
	key    string
	text   string
	number int64
	unit   unit
}

type unit uint8

const (
	words        unit = iota // text
	count                    // number
	microseconds             // number
)

func text(key, value string) field         { return field{key: key, text: value} }
func number(key string, value int64) field { return field{key: key, number: value, unit: count} }

// identity returns the event and the constant message of r.
func (r *record) identity() (Event, string) {
	switch r.kind {
	case exchangeFinished:
		return ExchangeFinished, "exchange finished"
	case exchangeFailed:
		return ExchangeFailed, "exchange failed"
	}
	return r.event, r.message
}

// priority is the level for the journal. Its rate limits count each service by priority, with notice and info in one
// account: only as debug do access lines leave the account of everything else alone.
func (r *record) priority() journal.Priority {
	switch {
	case r.level >= hclog.Error:
		return journal.PriErr
	case r.level == hclog.Warn:
		return journal.PriWarning
	case r.level == hclog.Info && r.kind != exchangeFinished:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// appendFields appends the facts of r in the order in which people want them.
func (r *record) appendFields(fs []field) []field {
	if r.kind == ordinary || r.kind == losses {
		return append(fs, r.fields...)
	}
	x := &r.exchange
	fs = appendTexts(fs, text("fault", x.Fault), text("blame", x.Blame), text("method", r.method), text("host", r.host), text("path", r.path))
	fs = append(fs, number("status", int64(x.Status)), field{key: "duration_usec", number: x.Duration.Microseconds(), unit: microseconds})
	fs = appendTexts(fs, text("listener", x.Listener), text("route", x.Route), text("upstream", x.Upstream), text("caller", x.Caller),
		text("caller_unit", x.Unit), text("request_id", r.requestID))
	fs = append(fs, number("generation", int64(x.Generation)), number("bytes_in", x.BytesIn), number("bytes_out", x.BytesOut))
	if x.Retries > 0 {
		fs = append(fs, number("retries", int64(x.Retries)))
	}
	if x.slow() {
		fs = append(fs, text("slow", "yes"))
	}
	return appendTexts(fs, text("error", r.err), text("summary", x.Summary), text("fix", x.Fix))
}

// appendTexts leaves out what has no value.
func appendTexts(fs []field, texts ...field) []field {
	for i := range texts {
		if texts[i].text != "" {
			fs = append(fs, texts[i])
		}
	}
	return fs
}
