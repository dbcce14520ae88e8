package service

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimEvery is how often we look whether memory can go back to the system.
	trimEvery = 2 * time.Second

	// trimWorth is how much must have been allocated since the last time to make it worth while.
	trimWorth = 4 << 20

	// trimCalm is how little may be allocated between two looks: while there is more, what was given back would be
	// wanted again at once.
	trimCalm = 1 << 20
)

// trim gives memory back after a rush. The runtime keeps what a rush took, stacks of idle callers above all, until its
// next collection, and as exchanges allocate nothing that may be minutes away.
func trim(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var seen, trimmed uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		if calm := now-seen < trimCalm; calm && now-trimmed >= trimWorth {
			debug.FreeOSMemory()
			trimmed = now
		}
		seen = now
	}
}
