package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func retries(b *Budget, now time.Time) (n int) {
	for b.Retry(now) {
		n++
	}
	return n
}

func TestBudgetAllowsItsShareOfTheRequests(t *testing.T) {
	b := NewBudget(0.2, 3, 10*time.Second)
	now := b.start
	for range 100 {
		b.Request(now)
	}
	if got := retries(b, now); got != 20 {
		t.Errorf("%d retries after 100 requests; want 20", got)
	}
	if spent, limit := b.Level(now); spent != 20 || limit != 20 {
		t.Errorf("Level() = %d, %d; want 20, 20", spent, limit)
	}
	for range 5 {
		b.Request(now)
	}
	if got := retries(b, now); got != 1 {
		t.Errorf("%d retries after 5 more requests; want 1", got)
	}
}

func TestBudgetAllowsItsLeastHoweverQuietItIs(t *testing.T) {
	b := NewBudget(0.2, 3, 10*time.Second)
	now := b.start
	for range 5 {
		if got := retries(b, now); got != 3 {
			t.Fatalf("%d retries without a request at %v; want 3", got, now.Sub(b.start))
		}
		now = now.Add(10 * time.Second)
	}
}

func TestBudgetForgetsRequestsOlderThanItsWindow(t *testing.T) {
	b := NewBudget(0.2, 3, 10*time.Second)
	for range 100 {
		b.Request(b.start)
	}
	if got := retries(b, b.start.Add(9*time.Second)); got != 20 {
		t.Errorf("%d retries 9 s after 100 requests; want 20", got)
	}
	if got := retries(b, b.start.Add(20*time.Second)); got != 3 {
		t.Errorf("%d retries 20 s after; want 3", got)
	}
}

func TestBudgetOfNothingAllowsNothing(t *testing.T) {
	b := NewBudget(0, 0, 10*time.Second)
	b.Request(b.start)
	if b.Retry(b.start) {
		t.Error("allows a retry")
	}
}

func TestBudgetHoldsUnderConcurrentUse(t *testing.T) {
	b := NewBudget(0.1, 0, 10*time.Second)
	var allowed atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				b.Request(b.start)
				if b.Retry(b.start) {
					allowed.Add(1)
				}
			}
		})
	}
	group.Wait()
	allowed.Add(int64(retries(b, b.start)))
	if got := allowed.Load(); got != 800 {
		t.Errorf("%d retries with 8000 requests; want 800", got)
	}
}

func TestBudgetAllocatesNothing(t *testing.T) {
	b, now := NewBudget(0.2, 3, 10*time.Second), time.Now()
	if n := testing.AllocsPerRun(100, func() { b.Request(now); b.Retry(now) }); n != 0 {
		t.Errorf("a request with a retry allocates %v times", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	budget, now := NewBudget(0.2, 3, 10*time.Second), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		budget.Request(now)
	}
}
