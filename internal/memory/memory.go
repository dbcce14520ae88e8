// Package memory decides how much of it the process has: some to work with, and not what only a rush needed.
package memory

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// lookEvery is how often we look whether there is something to give back.
	lookEvery = 250 * time.Millisecond

	// calm is how little is allocated between two looks at most: while there is more, what was given back would be
	// wanted again at once.
	calm = 128 << 10

	// worth is how much must have been allocated since the last time to make it worth while.
	worth = 1 << 20

	// share is which part of the time giving back takes at most: a load that comes in waves is not to pay for each of
	// them.
	share = 40

	// longest bounds the pause that follows from it: on a busy machine it took long without costing much.
	longest = 2 * time.Second

	// ground is what the heap may take before a collection, live or not. The runtime begins at a quarter of it, which a
	// proxy that makes a connection for each exchange uses up twenty times a second.
	ground = 16 << 20
)

// Mind looks after the process's memory until ctx ends. It gives memory back after the start and after each rush: the
// runtime keeps what a rush took until its next collections, and as exchanges allocate nothing those may be minutes away.
// And it puts collections off while the heap is small, unless GOGC is set, which is for whoever knows better.
func Mind(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	ours, percent := os.Getenv("GOGC") == "", 0
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	t := trimmer{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if p := percentOf(sample[1].Value.Uint64()); ours && p != percent {
			debug.SetGCPercent(p)
			percent = p
		}
		if begin := time.Now(); t.due(begin, sample[0].Value.Uint64()) {
			giveBack()
			t.done(begin, time.Now())
		}
	}
}

// percentOf is by how much of what is live, in percent, the heap may grow before the next collection (GOGC). It takes few
// values, as each change stops the process for a moment.
func percentOf(live uint64) int {
	for _, p := range []uint64{400, 200} {
		if live*(100+p)/100 <= ground {
			return int(p)
		}
	}
	return 100
}

// giveBack takes two collections: what a sync.Pool holds survives the first.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
	unmapProgram()
}

// trimmer decides when. The first time is the first calm after the start.
type trimmer struct {
	seen    uint64    // bytes allocated since the start, at the last look
	trimmed uint64    // and when memory was given back
	next    time.Time // not before that
	again   bool
}

// due reports whether it is time, now being the time of a look and allocated all bytes allocated until then.
func (t *trimmer) due(now time.Time, allocated uint64) bool {
	rest := allocated-t.seen < calm
	t.seen = allocated
	if !rest || t.again && allocated-t.trimmed < worth || now.Before(t.next) {
		return false
	}
	t.again, t.trimmed = true, allocated
	return true
}

// done tells how long it took.
func (t *trimmer) done(begin, end time.Time) {
	t.next = end.Add(min(share*end.Sub(begin), longest))
}
