package admission

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateHoldsItsLimit(t *testing.T) {
	g := NewGate(2)
	for range 2 {
		if !g.TryEnter() {
			t.Fatal("refused below the limit")
		}
	}
	if g.TryEnter() || g.Enter(0, nil) {
		t.Fatal("let in beyond the limit")
	}
	g.Leave()
	if !g.TryEnter() {
		t.Error("refused after one left")
	}
	if g.InUse() != 2 || g.Queued() != 0 || g.Limit() != 2 {
		t.Errorf("InUse, Queued, Limit = %d, %d, %d; want 2, 0, 2", g.InUse(), g.Queued(), g.Limit())
	}
}

func TestGateWithoutLimit(t *testing.T) {
	g := NewGate(0)
	for range 100000 {
		if !g.TryEnter() {
			t.Fatal("refused, although there is no limit")
		}
	}
	if g.InUse() != 100000 || g.Limit() != 0 {
		t.Errorf("InUse, Limit = %d, %d; want 100000, 0", g.InUse(), g.Limit())
	}
}

func TestGateServesInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		g.TryEnter()
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				if !g.Enter(time.Minute, nil) {
					t.Errorf("waiter %d was not served", i)
					return
				}
				order = append(order, i) // one at a time: the gate is the lock
				if g.TryEnter() {
					t.Errorf("a newcomer entered beside waiter %d", i)
				}
				g.Leave()
			})
			synctest.Wait()
		}
		if g.Queued() != 5 {
			t.Errorf("Queued() = %d; want 5", g.Queued())
		}
		g.Leave()
		wg.Wait()
		if want := []int{0, 1, 2, 3, 4}; !slices.Equal(order, want) {
			t.Errorf("served in order %v; want %v", order, want)
		}
		if g.InUse() != 0 || g.Queued() != 0 {
			t.Errorf("InUse, Queued = %d, %d at the end; want 0, 0", g.InUse(), g.Queued())
		}
	})
}

func TestGateNewcomersDoNotPassTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(2)
		g.TryEnter()
		g.TryEnter()
		var served atomic.Bool
		go func() { served.Store(g.Enter(time.Minute, nil)) }()
		synctest.Wait()
		g.Leave()
		if g.TryEnter() {
			t.Error("a newcomer took the place of a waiter")
		}
		synctest.Wait()
		if !served.Load() {
			t.Error("the waiter was not served")
		}
	})
}

func TestGateWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		g.TryEnter()
		start := time.Now()
		if g.Enter(time.Second, nil) {
			t.Error("entered a full gate")
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("gave up after %v; want 1s", d)
		}
		gone := make(chan struct{})
		time.AfterFunc(300*time.Millisecond, func() { close(gone) })
		start = time.Now()
		if g.Enter(time.Second, gone) {
			t.Error("entered a full gate")
		}
		if d := time.Since(start); d != 300*time.Millisecond {
			t.Errorf("gave up %v after arriving; want 300ms, when its caller went", d)
		}
		if g.InUse() != 1 || g.Queued() != 0 {
			t.Errorf("InUse, Queued = %d, %d; want 1, 0", g.InUse(), g.Queued())
		}
		g.Leave()
		if !g.TryEnter() {
			t.Error("the place is lost")
		}
	})
}

// The place is granted at the very instant at which the waiter gives up: it may
// be used or handed on, and is never lost.
func TestGatePlaceGrantedWhileGivingUpIsNotLost(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			g := NewGate(1)
			g.TryEnter()
			gone := make(chan struct{})
			time.AfterFunc(time.Second, g.Leave)
			if rand.N(2) == 0 {
				time.AfterFunc(time.Second, func() { close(gone) })
			}
			var inside atomic.Int32
			for range 3 {
				go func() {
					if g.Enter(time.Second, gone) {
						inside.Add(1)
					}
				}()
			}
			time.Sleep(2 * time.Second)
			if g.InUse() != int(inside.Load()) || g.Queued() != 0 {
				t.Fatalf("InUse, Queued = %d, %d with %d inside; want %[3]d, 0", g.InUse(), g.Queued(), inside.Load())
			}
		})
	}
}

func TestGateSetLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		g.TryEnter()
		var served atomic.Int32
		for range 4 {
			go func() {
				if g.Enter(time.Minute, nil) {
					served.Add(1)
				}
			}()
		}
		synctest.Wait()
		g.SetLimit(3)
		synctest.Wait()
		if served.Load() != 2 || g.InUse() != 3 || g.Queued() != 2 {
			t.Errorf("raised to 3: served %d, InUse %d, Queued %d; want 2, 3, 2", served.Load(), g.InUse(), g.Queued())
		}
		g.SetLimit(2)
		g.Leave()
		synctest.Wait()
		if served.Load() != 2 || g.InUse() != 2 || g.Queued() != 2 {
			t.Errorf("lowered to 2 and one left: served %d, InUse %d, Queued %d; want 2, 2, 2", served.Load(), g.InUse(), g.Queued())
		}
		g.SetLimit(0)
		synctest.Wait()
		if served.Load() != 4 || g.Queued() != 0 {
			t.Errorf("limit lifted: served %d, Queued %d; want 4, 0", served.Load(), g.Queued())
		}
	})
}

func TestGateLeaveWithoutEnterPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Leave of an empty gate did not panic")
		}
	}()
	NewGate(1).Leave()
}

// Ten places, a tenth of a second each on average: a hundred a second can be
// served, and two hundred come.
func TestGateAtTwiceItsLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout, arrivals = time.Second, 6000
		g := NewGate(10)
		r := rand.New(rand.NewPCG(1, 2))
		var atOnce, tooLate, longest atomic.Int64
		var served atomic.Int64
		for range arrivals {
			time.Sleep(time.Duration(r.ExpFloat64() * float64(5*time.Millisecond)))
			work := time.Duration(r.ExpFloat64() * float64(100*time.Millisecond))
			go func() {
				start := time.Now()
				if !g.Enter(timeout, nil) {
					if time.Since(start) == 0 {
						atOnce.Add(1)
					} else {
						tooLate.Add(1)
					}
					return
				}
				time.Sleep(work)
				served.Add(1)
				g.Leave()
			}()
			longest.Store(max(longest.Load(), int64(g.Queued())))
		}
		synctest.Wait()
		t.Logf("of %d: %d served, %d refused at once, %d after %v in vain; longest queue %d", arrivals, served.Load(), atOnce.Load(), tooLate.Load(), timeout, longest.Load())
		if served.Load() < arrivals*45/100 {
			t.Errorf("%d of %d were served; want nearly half of them, as many as there was room for", served.Load(), arrivals)
		}
		if int(g.Hopeless()) != int(atOnce.Load()) || atOnce.Load() < 2*tooLate.Load() {
			t.Errorf("%d refused at once (Hopeless %d), %d after waiting in vain; want most of them at once", atOnce.Load(), g.Hopeless(), tooLate.Load())
		}
		if longest.Load() > 150 {
			t.Errorf("%d queued; want about the hundred that can be served in %v", longest.Load(), timeout)
		}
		time.Sleep(time.Minute)
	})
}

func TestGateRefusesAtOnceWhatItCannotServeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		g.TryEnter()
		var served atomic.Int32
		enter := func() {
			if g.Enter(time.Second, nil) {
				served.Add(1)
			}
		}
		for range 10 { // nothing is known yet: all of them queue
			go enter()
		}
		synctest.Wait()
		if g.Queued() != 10 {
			t.Fatalf("Queued() = %d; want 10", g.Queued())
		}
		for range 5 { // one in a tenth of a second
			time.Sleep(100 * time.Millisecond)
			g.Leave()
		}
		synctest.Wait()
		for range 20 {
			go enter()
		}
		synctest.Wait()
		if g.Queued() != 10 || g.Hopeless() != 15 {
			t.Errorf("Queued, Hopeless = %d, %d; want 10, 15: five in front, and ten can be served in a second", g.Queued(), g.Hopeless())
		}
		for range 10 {
			g.Leave()
			synctest.Wait()
		}
		if served.Load() != 15 || g.Queued() != 0 {
			t.Errorf("%d served, %d queued at the end; want 15, 0", served.Load(), g.Queued())
		}
		g.Leave()
	})
}

// Nothing was given back for a whole timeout; then the queue has gone, and whoever
// comes is the first of a new one.
func TestGateThatStandsStillIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		g.TryEnter()
		go g.Enter(time.Second, nil)
		time.Sleep(500 * time.Millisecond)
		start := time.Now()
		if g.Enter(time.Second, nil) || time.Since(start) != 0 {
			t.Errorf("refused after %v; want at once", time.Since(start))
		}
		time.Sleep(time.Second)
		time.AfterFunc(900*time.Millisecond, g.Leave)
		if !g.Enter(time.Second, nil) {
			t.Error("the first after the standstill was not served, although a place was given back")
		}
		g.Leave()
	})
}

// Under contention by newcomers, waiters with short patience and changes of the
// limit, never more are inside than the largest limit, and all is empty at the end.
func TestGateUnderContention(t *testing.T) {
	const most = 4
	g := NewGate(most)
	var inside, entered atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			gone := make(chan struct{})
			if i%4 == 0 {
				close(gone)
			}
			for range 500 {
				ok := false
				switch i % 3 {
				case 0:
					ok = g.TryEnter()
				case 1:
					ok = g.Enter(time.Duration(rand.N(50))*time.Microsecond, gone)
				case 2:
					ok = g.Enter(time.Minute, nil)
				}
				if !ok {
					continue
				}
				entered.Add(1)
				if n := inside.Add(1); n > most {
					t.Errorf("%d inside; want at most %d", n, most)
				}
				inside.Add(-1)
				g.Leave()
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			g.SetLimit(1 + rand.N(most))
		}
	})
	wg.Wait()
	if g.InUse() != 0 || g.Queued() != 0 || entered.Load() == 0 {
		t.Errorf("InUse, Queued = %d, %d at the end, %d had entered; want 0, 0 and some", g.InUse(), g.Queued(), entered.Load())
	}
}

func TestGateAllocatesNothingWhenThereIsRoom(t *testing.T) {
	g := NewGate(1)
	if n := testing.AllocsPerRun(100, func() {
		g.Enter(time.Second, nil)
		g.Leave()
	}); n != 0 {
		t.Errorf("Enter and Leave allocate %v times", n)
	}
}

func BenchmarkGate(b *testing.B) {
	g := NewGate(100)
	b.ReportAllocs()
	for b.Loop() {
		g.TryEnter()
		g.Leave()
	}
}

func BenchmarkGateParallel(b *testing.B) {
	g := NewGate(100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.TryEnter()
			g.Leave()
		}
	})
}
