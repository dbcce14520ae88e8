package logging

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// batchSize is how many records the writer takes at a time. What it holds cannot be dropped for a more important one.
	batchSize = 64
	// linger is how long answered requests wait for others, so that many are written at once: waking the writer and entering
	// the kernel cost more than the record itself. Anything else is written without delay, and with it what waits.
	linger = 50 * time.Millisecond
)

// class orders records by how early they are dropped.
type class uint8

const (
	debugClass class = iota
	accessClass
	infoClass
	warnClass
	errorClass
	classes
)

func (r *record) class() class {
	switch {
	case r.level >= hclog.Error:
		return errorClass
	case r.level == hclog.Warn:
		return warnClass
	case r.level <= hclog.Debug && r.level != hclog.NoLevel:
		return debugClass
	case r.kind == exchangeFinished:
		return accessClass
	}
	return infoClass
}

// queue holds records that wait to be written. It has room for a fixed number; when that is used up, a record of a lower
// class makes room for one of a higher, and anything else is turned away. Memory is taken as it is needed, and given back.
type queue struct {
	wake chan struct{} // holds a token when there is something to take
	lost atomic.Uint64

	mu       sync.Mutex // guards what follows; never held while anything is written
	waiting  [classes]lane
	count    int
	max      int
	seq      uint64
	sleeping bool // the writer took nothing and has not been woken
	closed   bool
	dropped  uint64 // not yet told of
	flushes  []chan struct{}
}

// lane is a first-in first-out list of one class.
type lane struct {
	records []record
	head    int
}

func newQueue(max int) *queue { return &queue{max: max, wake: make(chan struct{}, 1)} }

// put takes a copy of r, or drops it or a lesser one.
func (q *queue) put(r *record) {
	c := r.class()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.lost.Add(1)
		return
	}
	if q.count >= q.max {
		q.lost.Add(1)
		q.dropped++
		lesser := class(0)
		for lesser < c && q.waiting[lesser].len() == 0 {
			lesser++
		}
		if lesser == c {
			return
		}
		q.waiting[lesser].pop()
		q.count--
	}
	r.seq = q.seq
	q.seq++
	q.waiting[c].push(r)
	q.count++
	// The first of those that linger wakes the writer to look at the clock.
	if q.sleeping && (q.count == 1 || !q.lingering()) {
		q.rouse()
	}
}

// rouse wakes the writer. The caller holds mu.
func (q *queue) rouse() {
	q.sleeping = false
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// lingering tells whether all that waits are answered requests, and not enough of them. The caller holds mu.
func (q *queue) lingering() bool {
	return q.count < min(batchSize, q.max) && q.count == q.waiting[accessClass].len() && len(q.flushes) == 0
}

// take moves the oldest records into batch, up to its capacity, in the order they came. A record that tells of losses goes
// before them. When it gives nothing, a put or a flush sends to wake when there is reason to ask again; later is true when
// what waits may linger, unless all is wanted now.
func (q *queue) take(batch []record, all bool) (_ []record, later bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !all && q.count > 0 && q.lingering() {
		q.sleeping = true
		return batch, true
	}
	if q.dropped > 0 && q.count > 0 {
		batch = append(batch, record{time: time.Now(), level: hclog.Warn, kind: losses, event: RecordsDropped,
			message: "log records dropped", fields: []field{number("count", int64(q.dropped))}})
	}
	for len(batch) < cap(batch) && q.count > 0 {
		oldest := -1
		for c := range q.waiting {
			if l := &q.waiting[c]; l.len() > 0 && (oldest < 0 || l.first().seq < q.waiting[oldest].first().seq) {
				oldest = c
			}
		}
		batch = append(batch, *q.waiting[oldest].first())
		q.waiting[oldest].pop()
		q.count--
	}
	if len(batch) == 0 {
		q.sleeping = true
		for c := range q.waiting {
			q.waiting[c].shrink()
		}
		for _, done := range q.flushes {
			close(done)
		}
		q.flushes = nil
	}
	return batch, false
}

// written tells how many of the records of a batch could not be written. A record of losses stands until it was.
func (q *queue) written(batch []record, lost int) {
	told := batch[0].kind == losses
	if lost == 0 && !told {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case lost == 0:
		q.dropped -= uint64(batch[0].fields[0].number)
	case told:
		lost--
		fallthrough
	default:
		q.lost.Add(uint64(lost))
		q.dropped += uint64(lost)
	}
}

// empty returns a channel that is closed once everything that is waiting now has been written.
func (q *queue) empty() <-chan struct{} {
	done := make(chan struct{})
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sleeping && q.count == 0 {
		close(done)
	} else {
		q.flushes = append(q.flushes, done)
		q.rouse()
	}
	return done
}

// close turns every later record away.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// discard drops all that is waiting and tells how many there were.
func (q *queue) discard() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.count
	q.waiting = [classes]lane{}
	q.count = 0
	q.lost.Add(uint64(n))
	return n
}

func (l *lane) len() int       { return len(l.records) - l.head }
func (l *lane) first() *record { return &l.records[l.head] }

func (l *lane) push(r *record) {
	if len(l.records) == cap(l.records) && l.head > len(l.records)/2 {
		n := copy(l.records, l.records[l.head:])
		clear(l.records[n:])
		l.records, l.head = l.records[:n], 0
	}
	l.records = append(l.records, *r)
}

// pop removes the first record.
func (l *lane) pop() {
	l.records[l.head] = record{}
	l.head++
	if l.head == len(l.records) {
		l.records, l.head = l.records[:0], 0
	}
}

// shrink gives back what a burst has taken.
func (l *lane) shrink() {
	if cap(l.records) > 2*batchSize {
		l.records = nil
	}
}
