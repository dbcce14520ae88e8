package admission

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeysHaveABucketEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeys(2, 3, 0)
		for _, key := range []string{"", "alice", "bob"} {
			for i := range 3 {
				if wait, ok := k.Admit([]byte(key)); !ok {
					t.Fatalf("Admit(%q) number %d = %v, false; want it admitted", key, i+1, wait)
				}
			}
			if wait, ok := k.Admit([]byte(key)); ok || wait != 500*time.Millisecond {
				t.Errorf("Admit(%q) of an empty bucket = %v, %v; want 500ms, false", key, wait, ok)
			}
		}
		time.Sleep(500 * time.Millisecond)
		if wait, ok := k.Admit([]byte("bob")); !ok {
			t.Errorf("Admit after waiting the advertised time = %v, false", wait)
		}
		if k.Len() != 3 {
			t.Errorf("Len() = %d; want 3", k.Len())
		}
	})
}

func TestKeysOfRateZeroAdmitEverything(t *testing.T) {
	k := NewKeys(0, 0, 0)
	for range 1000 {
		if _, ok := k.Admit([]byte("alice")); !ok {
			t.Fatal("refused, although there is no limit")
		}
	}
	if k.Len() != 0 {
		t.Errorf("Len() = %d; want 0: there is nothing to remember", k.Len())
	}
}

func TestKeysKeepWhatTheyOweWhenReconfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeys(1, 10, 0)
		alice, bob := []byte("alice"), []byte("bob")
		for range 8 {
			k.Admit(alice)
		}
		k.Reconfigure(2, 9) // alice owes 8, and has 1
		if _, ok := k.Admit(alice); !ok {
			t.Error("refused with a token left")
		}
		if wait, ok := k.Admit(alice); ok || wait != 500*time.Millisecond {
			t.Errorf("Admit of an empty bucket = %v, %v; want 500ms, false, by the new rate", wait, ok)
		}
		k.Reconfigure(100, 1)
		if wait, ok := k.Admit(alice); ok || wait != 10*time.Millisecond {
			t.Errorf("Admit with a smaller burst = %v, %v; want 10ms, false: a bucket is never worse than empty", wait, ok)
		}
		if _, ok := k.Admit(bob); !ok {
			t.Error("bob, who owes nothing, was refused")
		}
		k.Reconfigure(0, 0)
		k.Reconfigure(1, 1)
		if _, ok := k.Admit(alice); !ok {
			t.Error("refused after the limit had been switched off and on")
		}
	})
}

func TestKeysForgetOnlyFullBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		k := NewKeys(1, 2, most)
		victim := []byte("victim")
		k.Admit(victim)
		k.Admit(victim)
		for i := range 10 * most {
			k.Admit(fmt.Appendf(nil, "invented %d", i))
		}
		if k.Len() > most {
			t.Errorf("Len() = %d; want at most %d", k.Len(), most)
		}
		if k.Homeless() == 0 {
			t.Error("Homeless() = 0; want those who found no room")
		}
		if _, ok := k.Admit(victim); ok {
			t.Error("inventing keys has reset somebody's bucket")
		}
		time.Sleep(2 * time.Second) // all are full again, and can be forgotten
		before := k.Homeless()
		for i := range most {
			key := fmt.Appendf(nil, "later %d", i)
			if _, ok := k.Admit(key); !ok {
				t.Errorf("Admit(%q) was refused although all buckets are full", key)
			}
		}
		if k.Homeless() != before || k.Len() > most {
			t.Errorf("Homeless, Len = %d, %d; want %d and at most %d: full buckets make room", k.Homeless(), k.Len(), before, most)
		}
	})
}

// While there is room, somebody who comes once in a while is not forgotten; who
// has not come for a minute makes room for somebody new.
func TestKeysFollowTheNumberOfCallersDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeys(1000, 1, 0)
		for round := range 5 {
			for i := range 100 {
				k.Admit(fmt.Appendf(nil, "%d in round %d", i, round))
			}
			time.Sleep(10 * time.Second)
		}
		if k.Len() != 500 {
			t.Errorf("Len() = %d; want 500", k.Len())
		}
		time.Sleep(2 * time.Minute)
		for i := range 500 {
			k.Admit(fmt.Appendf(nil, "%d later", i))
		}
		if n := k.Len(); n > 700 {
			t.Errorf("Len() = %d; want about 500, those of before having been replaced", n)
		}
	})
}

func TestKeysOfAnyLengthTakeLittleRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeys(1, 1, 0)
		for _, n := range []int{0, 1, 31, 32, 33, 64, 65, 1 << 16} {
			long := []byte(strings.Repeat("x", n))
			if _, ok := k.Admit(long); !ok {
				t.Errorf("a key of %d bytes was taken for another", n)
			}
			if _, ok := k.Admit(long); ok {
				t.Errorf("a key of %d bytes was not recognized", n)
			}
		}
		for i := range k.table.shards {
			for _, b := range k.table.shards[i].slots {
				if len(b.name) > maxNameBytes {
					t.Errorf("a name of %d bytes is kept; want at most %d", len(b.name), maxNameBytes)
				}
			}
		}
		var digest [32]byte
		if _, ok := k.Admit(slices.Clone(nameOf([]byte(strings.Repeat("x", 65)), &digest))); !ok {
			t.Error("the digest of somebody's long key was taken for that key")
		}
	})
}

// model is a token bucket in the plainest way: so much time is in it.
type model struct {
	at, level int64
}

func (m *model) admit(g gcra, now int64) bool {
	m.level = min(m.level+now-m.at, g.depth)
	m.at = now
	if m.level < g.interval {
		return false
	}
	m.level -= g.interval
	return true
}

func FuzzGCRAIsATokenBucket(f *testing.F) {
	f.Add(2.0, 3, []byte{0, 0, 0, 0, 200, 0, 255, 1})
	f.Add(1e-9, 1<<40, []byte{1, 2, 3})
	f.Add(1e12, 1, []byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, perSecond float64, burst int, steps []byte) {
		g := newGCRA(perSecond, burst)
		if g.interval == 0 {
			if perSecond > 0 {
				t.Errorf("%v/s is no limit", perSecond)
			}
			return
		}
		m := model{level: g.depth}
		var now, full int64
		for i, step := range steps {
			if now += min(int64(step)*(g.interval/64+int64(step)%3), 1<<55); now > 1<<60 {
				return // the process is 36 years old
			}
			after, wait := g.admit(now, full)
			if want := m.admit(g, now); want != (wait == 0) {
				t.Fatalf("step %d of %v/s, burst %d: admitted %v; want %v", i, perSecond, burst, wait == 0, want)
			}
			if wait < 0 || wait > g.interval || wait > 0 && after != full {
				t.Fatalf("step %d: wait %d, bucket full at %d instead of %d; want it unchanged, and at most %d", i, wait, after, full, g.interval)
			}
			if wait > 0 {
				if _, again := g.admit(now+wait, full); again != 0 {
					t.Fatalf("step %d: refused after waiting the %d it was told", i, wait)
				}
				if _, again := g.admit(now+wait-1, full); again == 0 {
					t.Fatalf("step %d: told to wait %d, which is more than needed", i, wait)
				}
			}
			full = after
		}
	})
}

// With room for all, Keys is a bucket for each; with less, it is never more
// generous than that to anybody, whatever others do.
func FuzzKeysAgainstABucketEach(f *testing.F) {
	f.Add(uint64(1), uint8(3), false)
	f.Add(uint64(2), uint8(0), true)
	f.Fuzz(func(t *testing.T, seed uint64, burst uint8, scarce bool) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			most := 1 << 12
			if scarce {
				most = 1 + r.IntN(20)
			}
			perSecond := 1 + 99*r.Float64()
			k := NewKeys(perSecond, int(burst), most)
			g := newGCRA(perSecond, int(burst))
			start := time.Now()
			models := map[string]*model{}
			for i := range 2000 {
				if r.IntN(4) == 0 {
					time.Sleep(time.Duration(r.ExpFloat64() * float64(g.interval)))
				}
				key := fmt.Sprint(r.IntN(1 + r.IntN(50)))
				m := models[key]
				if m == nil {
					m = &model{level: g.depth}
					models[key] = m
				}
				before := *m
				now := int64(time.Since(start))
				_, got := k.Admit([]byte(key))
				want := m.admit(g, now)
				switch {
				case got && !want:
					t.Fatalf("step %d: %q was admitted beyond its budget, with room for %d keys", i, key, most)
				case want && !got && !scarce:
					t.Fatalf("step %d: %q was refused within its budget", i, key)
				case want && !got:
					*m = before
				}
			}
			if k.Len() > most {
				t.Errorf("Len() = %d; want at most %d", k.Len(), most)
			}
		})
	})
}

func TestKeysUnderContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst = 50
		k := NewKeys(1e-3, burst, 1<<12)
		var counts [10]atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 1))
				for j := range 3000 {
					n := r.IntN(len(counts))
					if _, ok := k.Admit(fmt.Appendf(nil, "key %d", n)); ok {
						counts[n].Add(1)
					}
					if j%100 == 0 {
						k.Admit(fmt.Appendf(nil, "%d invented %d", i, j))
						k.Len()
					}
					if i == 0 && j == 1000 {
						k.Reconfigure(1e-3, burst)
					}
				}
			})
		}
		wg.Wait()
		for n := range counts {
			if got := counts[n].Load(); got != burst {
				t.Errorf("key %d was admitted %d times; want its burst of %d", n, got, burst)
			}
		}
	})
}

func TestKeysAllocateNothingForAKnownKey(t *testing.T) {
	k := NewKeys(1e9, 1000000, 0)
	empty := NewKeys(1e-9, 1, 0)
	for name, key := range map[string][]byte{"short": []byte("alice"), "long": []byte(strings.Repeat("x", 1000))} {
		k.Admit(key)
		empty.Admit(key)
		if n := testing.AllocsPerRun(100, func() { k.Admit(key); empty.Admit(key) }); n != 0 {
			t.Errorf("Admit of a %s key allocates %v times", name, n)
		}
	}
}

func TestSharesLimitEachKey(t *testing.T) {
	s := NewShares(2)
	alice, bob := []byte("alice"), []byte(strings.Repeat("bob", 100))
	for _, key := range [][]byte{alice, bob} {
		for i, want := range []bool{true, true, false} {
			if got := s.Enter(key); got != want {
				t.Errorf("%s: Enter number %d = %v; want %v", key, i+1, got, want)
			}
		}
	}
	s.Leave(alice)
	if !s.Enter(alice) || s.Enter(alice) || s.Enter(bob) {
		t.Error("alice left once: want her let in once, and bob not at all")
	}
	s.SetLimit(3)
	if !s.Enter(bob) || s.Enter(bob) || s.Holds(bob) != 3 || s.Limit() != 3 {
		t.Errorf("with a limit of 3, bob holds %d; want 3", s.Holds(bob))
	}
	s.SetLimit(0)
	for range 100 {
		if !s.Enter(alice) {
			t.Fatal("refused, although there is no limit")
		}
	}
	s.SetLimit(1)
	if s.Enter(alice) || s.Holds(alice) != 102 {
		t.Errorf("alice holds %d; want 102, and no more", s.Holds(alice))
	}
	for range 102 {
		s.Leave(alice)
	}
	if !s.Enter(alice) {
		t.Error("refused after all was given back")
	}
	s.Leave(alice)
	for range 3 {
		s.Leave(bob)
	}
	if s.Len() != 0 {
		t.Errorf("Len() = %d; want 0: nobody holds anything", s.Len())
	}
}

func TestSharesLeaveWithoutEnterPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Leave by somebody who holds nothing did not panic")
		}
	}()
	NewShares(1).Leave([]byte("alice"))
}

func TestSharesUnderContention(t *testing.T) {
	const limit = 3
	s := NewShares(limit)
	var held [5]atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 2000 {
				n := (i + j) % len(held)
				key := fmt.Appendf(nil, "key %d", n)
				if !s.Enter(key) {
					continue
				}
				if got := held[n].Add(1); got > limit {
					t.Errorf("%d held by one key; want at most %d", got, limit)
				}
				held[n].Add(-1)
				s.Leave(key)
			}
		})
	}
	wg.Wait()
	if s.Len() != 0 {
		t.Errorf("Len() = %d at the end; want 0", s.Len())
	}
}

func TestSharesAllocateNothingForAKeyThatHoldsSome(t *testing.T) {
	s := NewShares(10)
	key := []byte("alice")
	s.Enter(key)
	if n := testing.AllocsPerRun(100, func() { s.Enter(key); s.Leave(key) }); n != 0 {
		t.Errorf("Enter and Leave allocate %v times", n)
	}
}

func BenchmarkKeys(b *testing.B) {
	k := NewKeys(1e9, 1e9, 0)
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "user %d", i)
	}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			k.Admit(keys[i%len(keys)])
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(1000); pb.Next(); i++ {
				k.Admit(keys[i%len(keys)])
			}
		})
	})
	b.Run("invented", func(b *testing.B) {
		k := NewKeys(1e-3, 1, 0)
		b.ReportAllocs()
		var key []byte
		for i := 0; b.Loop(); i++ {
			key = fmt.Appendf(key[:0], "user %d", i)
			k.Admit(key)
		}
	})
}

func BenchmarkShares(b *testing.B) {
	s := NewShares(10)
	key := []byte("alice")
	b.ReportAllocs()
	for b.Loop() {
		s.Enter(key)
		s.Leave(key)
	}
}
