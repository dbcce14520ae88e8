// Package logging writes what happens to the journal, a terminal or a pipe, and never makes an exchange wait for it.
package logging

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hashicorp/go-hclog"
)

// Options say where records go and which. The zero value means the default everywhere.
type Options struct {
	Level  string    // "trace", "debug", "info" (default), "warn", "error"
	Format string    // "auto" (default), "journal", "text", "json"
	Stderr io.Writer // default os.Stderr; for all formats but the journal
	Queue  int       // how many records may wait to be written; default 4096

	journalSocket string // default journald's own
}

const (
	defaultQueue   = 4096
	journaldSocket = "/run/systemd/journal/socket"
)

// Log takes records from any goroutine and writes them from one of its own. Close it to have the last ones written.
type Log struct {
	logger hclog.Logger
	level  atomic.Int32 // hclog.Level: what is below it is not taken
	bursts bursts
	blocks blocks
	queue  *queue // nil: everything is discarded

	mu      sync.Mutex // guards options and the decision to replace the sink
	options Options
	sink    atomic.Pointer[sinkBox]

	closing chan struct{} // closed when no more records are taken
	hurry   *atomic.Bool  // set when Close does not wait any longer
	done    chan struct{} // closed when the writer has ended
	once    sync.Once
}

// sinkBox is a sink on its way to the writer. Whoever sets taken closes it: the writer, or Reconfigure when the writer had not
// come to it before the next one was there.
type sinkBox struct {
	sink
	taken atomic.Bool
}

// New starts a log. It fails when the options cannot be honoured: an unknown level or format, a journal that is not there.
func New(o Options) (*Log, error) {
	l := &Log{closing: make(chan struct{}), done: make(chan struct{}), hurry: new(atomic.Bool)}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Queue <= 0 {
		o.Queue = defaultQueue
	}
	if o.journalSocket == "" {
		o.journalSocket = journaldSocket
	}
	level, err := parseLevel(o.Level)
	if err != nil {
		return nil, err
	}
	s, err := newSink(&o, l.hurry)
	if err != nil {
		return nil, err
	}
	l.options = o
	l.level.Store(int32(level))
	l.sink.Store(&sinkBox{sink: s})
	l.queue = newQueue(o.Queue)
	l.logger = newLogger(l, level)
	go l.write()
	return l, nil
}

// Discard returns a log that takes nothing.
func Discard() *Log {
	l := &Log{logger: hclog.NewNullLogger()}
	l.level.Store(int32(hclog.Off))
	return l
}

// Logger is for everything but exchanges. A value of type Event among the arguments gives the record its identity.
func (l *Log) Logger() hclog.Logger { return l.logger }

// Reconfigure changes level and format; the other options stay what they were. On error nothing has changed.
func (l *Log) Reconfigure(o Options) error {
	if l.queue == nil {
		return nil
	}
	level, err := parseLevel(o.Level)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.options
	next.Level, next.Format = o.Level, o.Format
	if next.Format != l.options.Format {
		s, err := newSink(&next, l.hurry)
		if err != nil {
			return err
		}
		if last := l.sink.Swap(&sinkBox{sink: s}); last.taken.CompareAndSwap(false, true) {
			last.close()
		}
	}
	l.options = next
	l.level.Store(int32(level))
	l.logger.SetLevel(level)
	return nil
}

// Dropped is how many records were lost since New because they could not be written in time.
func (l *Log) Dropped() uint64 {
	if l.queue == nil {
		return 0
	}
	return l.queue.lost.Load()
}

// Flush waits until all records taken so far are written, at most for timeout, and tells whether they were.
func (l *Log) Flush(timeout time.Duration) bool {
	if l.queue == nil {
		return true
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-l.queue.empty():
		return true
	case <-l.done:
		return true
	case <-t.C:
		return false
	}
}

// Close takes no more records, writes those that wait and the sums of bursts, and returns after timeout at the latest.
// When the log could not be written by then, it says how many records were lost. A write to stderr that blocks for good is
// left behind: nothing can end it but the end of the process.
func (l *Log) Close(timeout time.Duration) error {
	if l.queue == nil {
		return nil
	}
	l.once.Do(func() {
		for _, sum := range l.bursts.close() {
			l.queue.put(sum)
		}
		l.queue.close()
		close(l.closing)
	})
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-l.done:
		return nil
	case <-t.C:
	}
	l.hurry.Store(true)
	l.sink.Load().interrupt()
	grace := time.NewTimer(100 * time.Millisecond)
	defer grace.Stop()
	select {
	case <-l.done:
	case <-grace.C:
	}
	if n := l.queue.discard(); n > 0 {
		return fmt.Errorf("close log: %d records not written within %v", n, timeout)
	}
	return fmt.Errorf("close log: the last record was not written within %v", timeout)
}

// Debugging reports whether records of the level debug are taken. Ask before making one up.
func (l *Log) Debugging() bool { return l.enabled(hclog.Debug) }

// Tracing is the same for the level trace.
func (l *Log) Tracing() bool { return l.enabled(hclog.Trace) }

func (l *Log) enabled(level hclog.Level) bool { return int32(level) >= l.level.Load() }

// write is the only goroutine that writes. It ends after Close once the queue is empty, or when Close is tired of waiting.
func (l *Log) write() {
	defer close(l.done)
	var box *sinkBox
	defer func() {
		if box != nil {
			box.close()
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	batch := make([]record, 0, batchSize)
	all := false // what may linger has done so
	for !l.hurry.Load() {
		var last bool // once nothing more is taken, an empty queue stays empty
		select {
		case <-l.closing:
			last = true
		default:
		}
		for now := l.sink.Load(); now != box; now = l.sink.Load() {
			if !now.taken.CompareAndSwap(false, true) {
				continue // replaced in this very moment
			}
			if box != nil {
				box.close()
			}
			box = now
		}
		next, sums := l.bursts.sweep(time.Now())
		for _, sum := range sums {
			l.queue.put(sum)
		}
		var later bool
		batch, later = l.queue.take(batch[:0], all || last)
		all = false
		if len(batch) > 0 {
			l.queue.written(batch, box.write(batch))
			clear(batch) // the writer may sleep for long; let their strings go
			continue
		}
		if last {
			return
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = time.Until(next)
		}
		if later {
			wait = min(wait, linger)
		}
		timer.Reset(wait)
		select {
		case <-l.queue.wake:
		case <-timer.C:
			all = true
		case <-l.closing:
		}
	}
}

func parseLevel(s string) (hclog.Level, error) {
	switch s {
	case "":
		return hclog.Info, nil
	case "trace", "debug", "info", "warn", "error":
		return hclog.LevelFromString(s), nil
	}
	return hclog.NoLevel, fmt.Errorf("log level %q is none of trace, debug, info, warn, error", s)
}

// sink is one way of writing. Only the writer's goroutine uses it, but for interrupt.
type sink interface {
	write(batch []record) (lost int)
	interrupt() // ends a write under way, if it can
	close()
}

func newSink(o *Options, hurry *atomic.Bool) (sink, error) {
	underJournal := false
	if o.Stderr == os.Stderr {
		underJournal, _ = journal.StderrIsJournalStream() // what cannot be read is not the journal's
	}
	switch o.Format {
	case "journal":
		return newJournalSink(o.journalSocket, hurry)
	case "text":
		return &lineSink{w: o.Stderr, format: appendText, marks: underJournal}, nil
	case "json":
		return &lineSink{w: o.Stderr, format: appendJSON, marks: underJournal}, nil
	case "", "auto":
	default:
		return nil, fmt.Errorf("log format %q is none of auto, journal, text, json", o.Format)
	}
	if underJournal {
		if s, err := newJournalSink(o.journalSocket, hurry); err == nil {
			return s, nil
		}
		return &lineSink{w: o.Stderr, format: appendText, marks: true}, nil
	}
	if f, ok := o.Stderr.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &lineSink{w: o.Stderr, format: appendText}, nil
		}
	}
	return &lineSink{w: o.Stderr, format: appendJSON}, nil
}
