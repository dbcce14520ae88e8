package logging

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	burstWindow  = 10 * time.Second
	burstRecords = 10 // of one fault within a window; the rest are a sum
)

// bursts keeps one fault that strikes again and again from filling the log.
type bursts struct {
	mu      sync.Mutex // guards what follows
	windows map[burstKey]*window
	closed  bool
}

// burstKey tells faults apart: all of it is names of ours and of the configuration, so that windows cannot grow without bound.
type burstKey struct{ fault, upstream, route string }

type window struct {
	start time.Time
	count int // faults seen, those recorded one by one included
	level hclog.Level
	blame string
	fix   string
}

// admit tells whether the fault of r is recorded by itself. When it opens a new window, the sum of the one before is
// returned, if that had any.
func (b *bursts) admit(r *ExchangeRecord, level hclog.Level, now time.Time) (ok bool, sum *record) {
	key := burstKey{r.Fault, r.Upstream, r.Route}
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.windows[key]
	if w == nil || now.Sub(w.start) >= burstWindow {
		if w != nil {
			sum = w.sum(key, now)
		}
		if b.windows == nil {
			b.windows = make(map[burstKey]*window)
		}
		w = &window{start: now, level: level, blame: r.Blame, fix: r.Fix}
		b.windows[key] = w
	}
	w.count++
	return w.count <= burstRecords || b.closed, sum
}

// sweep ends the windows that are over, and tells when the next one will be; zero: there is none.
func (b *bursts) sweep(now time.Time) (next time.Time, sums []*record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, w := range b.windows {
		end := w.start.Add(burstWindow)
		if now.Before(end) {
			if next.IsZero() || end.Before(next) {
				next = end
			}
			continue
		}
		if sum := w.sum(key, now); sum != nil {
			sums = append(sums, sum)
		}
		delete(b.windows, key)
	}
	return next, sums
}

// close ends all windows, over or not. What comes later is not counted any more.
func (b *bursts) close() (sums []*record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for key, w := range b.windows {
		if sum := w.sum(key, time.Now()); sum != nil {
			sums = append(sums, sum)
		}
	}
	b.windows = nil
	return sums
}

// sum is the record of a window that had more faults than were recorded; nil for any other.
func (w *window) sum(key burstKey, now time.Time) *record {
	if w.count <= burstRecords {
		return nil
	}
	r := &record{time: now, level: w.level, kind: ordinary, event: FaultRepeated, message: "fault repeated"}
	r.fields = append(r.fields, text("fault", key.fault), number("count", int64(w.count)), number("recorded", burstRecords),
		number("window_seconds", int64(burstWindow/time.Second)))
	for _, f := range [...]field{text("blame", w.blame), text("route", key.route), text("upstream", key.upstream), text("fix", w.fix)} {
		if f.text != "" {
			r.fields = append(r.fields, f)
		}
	}
	return r
}
