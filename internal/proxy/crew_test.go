package proxy

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
)

// runner is the goroutine that c runs something in now.
func runner(c *crew) string {
	told := make(chan string, 1)
	c.run(func() {
		b := make([]byte, 64)
		name, _, _ := strings.Cut(string(b[:runtime.Stack(b, false)]), " [")
		told <- name
	})
	name := <-told
	synctest.Wait()
	return name
}

func TestCrewRunsOneAfterTheOtherInOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		defer c.end()
		first := runner(&c)
		if second := runner(&c); second != first {
			t.Errorf("%s ran the second one, want %s", second, first)
		}
		c.sweep()
		if third := runner(&c); third != first { // it was needed since the last sweep
			t.Errorf("%s ran the third one, want %s", third, first)
		}
	})
}

func TestCrewRunsAllAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		defer c.end()
		const all = mostResting + 10
		running, release := 0, make(chan struct{})
		started := make(chan struct{}, all)
		for range all {
			c.run(func() { started <- struct{}{}; <-release })
		}
		synctest.Wait()
		if running = len(started); running != all {
			t.Errorf("%d of %d run", running, all)
		}
		close(release)
		synctest.Wait()
		if n := len(c.resting); n != mostResting {
			t.Errorf("%d rest, want %d", n, mostResting)
		}
	})
}

// The bubble ends only when all goroutines in it have.
func TestCrewEndsWhoeverIsNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		runner(&c)
		c.sweep() // needed
		c.sweep() // not since
		synctest.Wait()
		if n := len(c.resting); n != 0 {
			t.Errorf("%d rest after nobody was needed, want 0", n)
		}
	})
}

func TestCrewEndWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		release, over := make(chan struct{}), false
		c.run(func() { <-release })
		runner(&c)
		go func() { c.end(); over = true }()
		synctest.Wait()
		if over {
			t.Error("end returned while something ran")
		}
		close(release)
		synctest.Wait()
		if !over {
			t.Error("end did not return")
		}
	})
}
