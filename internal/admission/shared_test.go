package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// patient is how long the real stores of these tests may take: no test depends on
// their being quick.
const patient = time.Minute

func newTestShared(t testing.TB, o SharedOptions) *Shared {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	s, err := NewShared(t.Context(), o)
	if err != nil {
		t.Fatalf("NewShared: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// take asks until it is refused, and returns how often it was admitted.
func take(t testing.TB, s *Shared, key string) (n int) {
	t.Helper()
	for ; ; n++ {
		wait, ok, away := s.Admit([]byte(key))
		if away {
			t.Fatalf("Admit(%q) number %d: the store is away: %v", key, n+1, s.Stats().Err)
		}
		if !ok {
			if wait <= 0 {
				t.Errorf("refused, and told to wait %v", wait)
			}
			return n
		}
	}
}

func TestSharedIsOneBudgetForAll(t *testing.T) {
	st := startStore(t)
	o := SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: 50}
	a, b := newTestShared(t, o), newTestShared(t, o)
	for range 20 {
		if _, ok, away := a.Admit([]byte("alice")); !ok || away {
			t.Fatalf("Admit = %v, away %v; want it admitted", ok, away)
		}
	}
	n, m := take(t, b, "alice"), take(t, a, "alice")
	if n+m != 30 {
		t.Errorf("after 20 of 50, %d and %d were admitted; want 30 in all", n, m)
	}
	if n := take(t, b, "bob"); n != 50 {
		t.Errorf("bob was admitted %d times; want his own 50", n)
	}
	if n := take(t, newTestShared(t, o), "alice"); n != 0 {
		t.Errorf("a new member of the fleet admitted %d; want 0: nothing is left", n)
	}
	other := o
	other.Prefix = "other:"
	if n := take(t, newTestShared(t, other), "alice"); n != 50 {
		t.Errorf("with another prefix %d were admitted; want 50: another budget", n)
	}
}

// Slices are paid for when they are taken, so all that two members ever admit is
// within the budget, however they race.
func TestSharedNeverExceedsTheBudget(t *testing.T) {
	const perSecond, burst = 2000, 300
	st := startStore(t)
	o := SharedOptions{URL: st.url(), PerSecond: perSecond, Burst: burst}
	members := []*Shared{newTestShared(t, o), newTestShared(t, o)}
	var total atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for _, s := range members {
		for range 4 {
			wg.Go(func() {
				for time.Since(start) < 300*time.Millisecond {
					if _, ok, away := s.Admit([]byte("alice")); away {
						t.Errorf("the store is away: %v", s.Stats().Err)
						return
					} else if ok {
						total.Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	elapsed := time.Since(start)
	budget := burst + perSecond*elapsed.Seconds()
	t.Logf("%d admitted of %.0f in %v; %d and %d round trips", total.Load(), budget, elapsed, members[0].Stats().Trips, members[1].Stats().Trips)
	if got := float64(total.Load()); got > budget || got < burst {
		t.Errorf("%v were admitted in %v; want at least the burst, %d, and at most %.0f", got, elapsed, burst, budget)
	}
}

func TestSharedAsksTheStoreSeldom(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1e9, Burst: 1e9})
	const n = 100000
	for range n {
		if _, ok, away := s.Admit([]byte("alice")); !ok || away {
			t.Fatalf("Admit = %v, away %v; want it admitted", ok, away)
		}
	}
	if got := s.Stats(); got.Trips > n/100 || got.Without != 0 {
		t.Errorf("%d round trips for %d admissions, %d without the store; want less than %d, and 0", got.Trips, n, got.Without, n/100)
	}
	key := []byte("alice")
	if n := testing.AllocsPerRun(10000, func() { s.Admit(key) }); n != 0 {
		t.Errorf("Admit allocates %v times", n)
	}
}

func TestSharedKeysExpire(t *testing.T) {
	st := startStore(t)
	slow := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 0.1, Burst: 10, Prefix: "slow:"})
	secret := strings.Repeat("secret", 1000)
	take(t, slow, secret)
	names := slices.DeleteFunc(st.names(), func(name string) bool { return name == "slow:probe" }) // it lives for a few ms
	if len(names) != 1 || !strings.HasPrefix(names[0], "slow:") || len(names[0]) > 40 || strings.Contains(names[0], "secret") {
		t.Fatalf("the store holds %q; want one short name with the prefix and nothing of the key", names)
	}
	if ms, _ := st.do("PTTL", names[0]).(int64); ms <= 0 || ms > 101_000 {
		t.Errorf("the key of an empty bucket lives for %d ms; want at most the 100 s in which it fills", ms)
	}
	fast := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1000, Burst: 10, Prefix: "fast:"})
	for i := range 500 {
		fast.Admit(fmt.Appendf(nil, "key %d", i))
	}
	for limit := time.Now().Add(patient); ; {
		if n := len(st.names()); n == 1 { // the slow one
			break
		} else if time.Now().After(limit) {
			t.Fatalf("%d keys are left; want those of full buckets to have gone", n)
		}
	}
}

func TestSharedMemoryIsBoundedInTheStoreToo(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: 5, Most: 16})
	take(t, s, "alice")
	for i := range 300 {
		s.Admit(fmt.Appendf(nil, "invented %d", i))
	}
	if n := len(st.names()); n > 16+spares+1 {
		t.Errorf("the store holds %d keys; want at most %d, %d for the others together, and the probe", n, 16, spares)
	}
	if got := s.Stats(); got.Keys > 16 {
		t.Errorf("%d keys are remembered; want at most 16", got.Keys)
	}
	if n := take(t, s, "alice"); n != 0 {
		t.Errorf("inventing keys has given alice %d tokens", n)
	}
}

func TestSharedKeepsWhatIsOwedWhenReconfigured(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: 10})
	if n := take(t, s, "alice"); n != 10 {
		t.Fatalf("%d admitted; want 10", n)
	}
	s.Reconfigure(1e-5, 10)
	if n := take(t, s, "alice"); n != 0 {
		t.Errorf("%d admitted by a lower rate; want 0: the bucket was empty", n)
	}
	s.Reconfigure(1e-3, 12)
	if n := take(t, s, "alice"); n != 2 {
		t.Errorf("%d admitted after the burst grew by 2; want 2", n)
	}
	s.Reconfigure(0, 0)
	for range 100 {
		if _, ok, away := s.Admit([]byte("alice")); !ok || away {
			t.Fatal("refused, although there is no limit")
		}
	}
}

func TestSharedWithoutTheStore(t *testing.T) {
	for name, failure := range map[string]Failure{"local": Local, "allow": Allow, "deny": Deny} {
		t.Run(name, func(t *testing.T) {
			st := startStore(t)
			changes := make(chan error, 10)
			s := newTestShared(t, SharedOptions{
				URL: st.url(), PerSecond: 1e-3, Burst: 10, Failure: failure,
				Changed: func(err error) { changes <- err },
			})
			if n := take(t, s, "alice"); n != 10 {
				t.Fatalf("%d admitted; want 10", n)
			}
			st.kill()
			admitted := 0
			for i := range 100 {
				wait, ok, away := s.Admit([]byte("bob"))
				if !away {
					t.Fatalf("Admit number %d = %v, %v, not away; want it to tell that the store is", i+1, wait, ok)
				}
				if ok {
					admitted++
				} else if wait <= 0 {
					t.Errorf("refused, and told to wait %v", wait)
				}
			}
			if want := map[Failure]int{Local: 10, Allow: 100, Deny: 0}[failure]; admitted != want {
				t.Errorf("%d of 100 were admitted; want %d", admitted, want)
			}
			if err := <-changes; err == nil || !strings.Contains(err.Error(), "store at unix://") {
				t.Errorf("Changed was told %v; want why the store is away", err)
			}
			if got := s.Stats(); !got.Away || got.Err == nil || got.Failed == 0 || got.Without != 100 {
				t.Errorf("Stats() = %+v; want it away, with a reason, a failure, and 100 answered without it", got)
			}
			st.start()
			if err := <-changes; err != nil {
				t.Fatalf("Changed was told %v; want nil, the store is back", err)
			}
			if n := take(t, s, "bob"); n != 10 {
				t.Errorf("%d admitted with the store back, which forgot all; want 10", n)
			}
		})
	}
}

// Whatever the store lost, exchanges do not notice: the connection, or the script.
func TestSharedMendsWhatIsLost(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{
		URL: st.url(), PerSecond: 1e-3, Burst: 10, Failure: Deny,
		Changed: func(err error) { t.Errorf("the store was said to be away: %v", err) },
	})
	if n := take(t, s, "alice"); n != 10 {
		t.Fatalf("%d admitted; want 10", n)
	}
	st.kill()
	st.start()
	if n := take(t, s, "bob"); n != 10 {
		t.Errorf("%d admitted after a restart of the store; want 10", n)
	}
	st.do("SCRIPT", "FLUSH")
	if n := take(t, s, "carol"); n != 10 {
		t.Errorf("%d admitted after the store had forgotten the script; want 10", n)
	}
	st.cut()
	if n := take(t, s, "dave"); n != 10 {
		t.Errorf("%d admitted after the store had closed the connection; want 10", n)
	}
}

// A store that was stopped in its tracks is given up within the timeout, and asked
// again until it answers.
func TestSharedStoreThatHangs(t *testing.T) {
	st := startStore(t)
	changes := make(chan error, 1000)
	s := newTestShared(t, SharedOptions{
		URL: st.url(), PerSecond: 1e-3, Burst: 10, Failure: Allow, Timeout: 50 * time.Millisecond,
		Changed: func(err error) { changes <- err },
	})
	s.Admit([]byte("alice"))
	if err := st.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if _, ok, away := s.Admit(fmt.Appendf(nil, "key %d", i)); !ok || !away {
			t.Fatalf("Admit number %d = %v, away %v; want it allowed without the store", i+1, ok, away)
		}
	}
	if err := <-changes; err == nil {
		t.Error("Changed was told that the store is back; want why it is away")
	}
	if err := st.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range changes {
		if !s.Stats().Away {
			break
		}
	}
}

func TestSharedUnderContention(t *testing.T) {
	const burst = 40
	st := startStore(t)
	o := SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: burst}
	members := []*Shared{newTestShared(t, o), newTestShared(t, o)}
	var counts [20]atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			s := members[i%2]
			for j := range 200 {
				n := (i + j) % len(counts)
				_, ok, away := s.Admit(fmt.Appendf(nil, "key %d", n))
				if away {
					t.Errorf("the store is away: %v", s.Stats().Err)
					return
				}
				if ok {
					counts[n].Add(1)
				}
				if i == 0 && j == 100 {
					s.Reconfigure(1e-3, burst)
				}
			}
		})
	}
	wg.Wait()
	for n := range counts {
		// What a member took and did not use is lost to the others.
		if got := counts[n].Load(); got > burst || got < burst/2 {
			t.Errorf("key %d was admitted %d times; want about its burst of %d, and no more", n, got, burst)
		}
	}
}

func TestSharedAfterClose(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: 10, Failure: Deny})
	s.Admit([]byte("alice"))
	s.Close()
	if wait, ok, away := s.Admit([]byte("bob")); ok || !away || wait < time.Second {
		t.Errorf("Admit after Close = %v, %v, away %v; want at least 1s, false, true", wait, ok, away)
	}
	s.Close()
	never := newTestShared(t, SharedOptions{URL: "redis://127.0.0.1:1/0", PerSecond: 1})
	never.Close()
	if got := never.Stats(); got.Failed != 0 {
		t.Errorf("%d connections were tried for a budget that nobody asked; want none", got.Failed)
	}
}

// inBubble returns a Shared whose store is answer, or is mute when that is nil,
// and counts the connections to it. All of it lives in the test's bubble.
func inBubble(t *testing.T, o SharedOptions, answer func(key string, want int) (granted, waitMicros, fullMicros int)) (*Shared, *atomic.Int32) {
	at, err := parseURL("redis://127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	dials := new(atomic.Int32)
	s := newShared(t.Context(), o, at, func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		ours, theirs := net.Pipe()
		if answer == nil {
			context.AfterFunc(t.Context(), func() { theirs.Close() })
			return ours, nil
		}
		go fakeStore(theirs, answer)
		return ours, nil
	})
	t.Cleanup(func() {
		s.Close()
		time.Sleep(time.Hour) // of the bubble: a store that thinks about its answer finds out
	})
	return s, dials
}

func TestSharedNeverWaitsLongForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dials := inBubble(t, SharedOptions{PerSecond: 10, Burst: 10, Failure: Allow}, nil)
		start := time.Now()
		for range 10 {
			go s.Admit([]byte("alice"))
		}
		if _, ok, away := s.Admit([]byte("alice")); !ok || !away || time.Since(start) != 50*time.Millisecond {
			t.Errorf("Admit = %v, away %v after %v; want it allowed, away, after 50ms", ok, away, time.Since(start))
		}
		start = time.Now()
		for i := range 100 {
			s.Admit(fmt.Appendf(nil, "key %d", i))
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("a hundred answers without the store took %v; want 0s", d)
		}
		time.Sleep(10 * time.Minute)
		if n := dials.Load(); n < 40 || n > 70 {
			t.Errorf("the store was looked for %d times in ten minutes; want about one in ten seconds", n)
		}
		if !s.Stats().Away {
			t.Error("a store that says nothing is not said to be away")
		}
	})
}

// It answers the search for it, which has time, but would make every exchange wait.
func TestSharedStoreThatIsTooSlowIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone, back atomic.Int32
		changed := func(err error) {
			if err != nil {
				gone.Add(1)
			} else {
				back.Add(1)
			}
		}
		var delay atomic.Int64
		delay.Store(int64(60 * time.Millisecond))
		s, _ := inBubble(t, SharedOptions{PerSecond: 10, Burst: 10, Failure: Allow, Changed: changed},
			func(_ string, want int) (int, int, int) {
				time.Sleep(time.Duration(delay.Load()))
				return want, 0, 0
			})
		late := 0
		for range 1000 {
			start := time.Now()
			if _, _, away := s.Admit([]byte("alice")); !away {
				t.Fatal("a store that takes 60ms was waited for")
			}
			if time.Since(start) > 0 {
				late++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if late != 1 || gone.Load() != 1 || back.Load() != 0 {
			t.Errorf("%d exchanges waited, the store was said to have gone %d times and come back %d; want 1, 1, 0: once is enough", late, gone.Load(), back.Load())
		}
		delay.Store(int64(time.Millisecond))
		time.Sleep(lastPause + openTimeout)
		if _, ok, away := s.Admit([]byte("alice")); !ok || away || back.Load() != 1 {
			t.Errorf("with a quicker store, Admit = %v, away %v; said to be back %d times; want it admitted by the store, and 1", ok, away, back.Load())
		}
	})
}

func TestSharedSlicesFollowTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, largest atomic.Int64
		s, _ := inBubble(t, SharedOptions{PerSecond: 10000, Burst: 10000}, func(_ string, want int) (int, int, int) {
			if want > 0 {
				asked.Add(1)
				largest.Store(max(largest.Load(), int64(want)))
			}
			return want, 0, 1000
		})
		for range 5000 { // a thousand a second
			if _, ok, away := s.Admit([]byte("alice")); !ok || away {
				t.Fatalf("Admit = %v, away %v; want it admitted", ok, away)
			}
			time.Sleep(time.Millisecond)
		}
		if asked.Load() > 90 || largest.Load() > 200 {
			t.Errorf("%d slices in 5s, the largest of %d; want about one in a tenth of a second, of about 100", asked.Load(), largest.Load())
		}
		asked.Store(0)
		for range 20 { // one in two seconds
			time.Sleep(2 * time.Second)
			s.Admit([]byte("alice"))
		}
		if n := asked.Load(); n < 19 || n > 20 {
			t.Errorf("%d slices for 20 exchanges two seconds apart; want one each: no slice is kept for that long", n)
		}
	})
}

// A flood of a key whose budget is used up does not become a flood of the store.
func TestSharedRemembersARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s, _ := inBubble(t, SharedOptions{PerSecond: 10000, Burst: 1000}, func(_ string, want int) (int, int, int) {
			if want > 0 {
				asked.Add(1)
			}
			return 0, 100, 100000
		})
		for range 10000 { // in a second
			if wait, ok, away := s.Admit([]byte("alice")); ok || away || wait <= 0 || wait > hold {
				t.Fatalf("Admit = %v, %v, away %v; want it refused for at most %v", wait, ok, away, hold)
			}
			time.Sleep(100 * time.Microsecond)
		}
		if n := asked.Load(); n > 101 {
			t.Errorf("the store was asked %d times in a second; want at most 101", n)
		}
	})
}

// A bucket that takes long for a token is not refused for as long without asking:
// the store may have forgotten it, or others have a better rate.
func TestSharedAsksAgainWhatWasRefusedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s, _ := inBubble(t, SharedOptions{PerSecond: 0.01, Burst: 10}, func(_ string, want int) (int, int, int) {
			if want > 0 {
				asked.Add(1)
			}
			return 0, 100e6, 1000e6
		})
		for range 100 {
			if wait, ok, away := s.Admit([]byte("alice")); ok || away || wait < 99*time.Second || wait > 100*time.Second {
				t.Fatalf("Admit = %v, %v, away %v; want it refused for about 100s", wait, ok, away)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := asked.Load(); n < 9 || n > 11 {
			t.Errorf("the store was asked %d times in ten seconds; want once in a second", n)
		}
	})
}

// A key that gets a bucket of its own while the store is asked about the shared one
// takes that one's debt along, but not that it is needed for the answer: it asks
// nothing itself while the store is away, and would hold its place for ever.
func TestSharedPlacesAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := inBubble(t, SharedOptions{PerSecond: 1, Burst: 1, Most: 4, Failure: Allow}, nil)
		s.Admit([]byte("somebody"))
		sh := &s.table.shards[0]
		for i := range sh.shared {
			sh.shared[i].full = math.MaxInt64
		}
		s.Admit([]byte("alice"))
		if b, own := sh.find([]byte("alice"), 0, s.table.now()); !own || b.full > s.table.now() {
			t.Errorf("alice's bucket is her own: %v, and full at %d; want true, and at most now, %d", own, b.full, s.table.now())
		}
	})
}

// Many at once are one question, for as many tokens as they need.
func TestSharedAsksOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		s, _ := inBubble(t, SharedOptions{PerSecond: 10, Burst: 100}, func(_ string, want int) (int, int, int) {
			if want > 0 {
				asked.Add(1)
			}
			time.Sleep(time.Millisecond)
			return want, 0, 1000
		})
		var admitted atomic.Int32
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() {
				if _, ok, away := s.Admit([]byte("alice")); ok && !away {
					admitted.Add(1)
				}
			})
		}
		wg.Wait()
		if admitted.Load() != 60 || asked.Load() > 4 {
			t.Errorf("%d of 60 admitted, by %d questions; want all, by two or three", admitted.Load(), asked.Load())
		}
	})
}

func TestSharedTellsNoSecrets(t *testing.T) {
	const password = "pa55-word"
	st := startStore(t, "--requirepass", password)
	right := newTestShared(t, SharedOptions{URL: st.url(), Password: password, PerSecond: 1e-3, Burst: 5})
	if n := take(t, right, "alice"); n != 5 {
		t.Errorf("%d admitted with the right password; want 5", n)
	}
	inURL := newTestShared(t, SharedOptions{URL: "unix://:" + password + "@" + st.socket, PerSecond: 1e-3, Burst: 5})
	if n := take(t, inURL, "bob"); n != 5 {
		t.Errorf("%d admitted with the password in the URL; want 5", n)
	}
	o := SharedOptions{URL: "unix://karla:wrong-" + password + "@" + st.socket, Password: "also-" + password, PerSecond: 1, Failure: Deny}
	wrong := newTestShared(t, o)
	if _, ok, away := wrong.Admit([]byte("alice")); ok || !away {
		t.Errorf("with a wrong password, Admit = %v, away %v; want it away", ok, away)
	}
	echo := (&link{at: &address{password: password}}).describe(errors.New("ERR unknown command 'HELLO', with args beginning with: '2' 'AUTH' 'default' '" + password + "'"))
	_, bad := NewShared(t.Context(), SharedOptions{URL: "redis://karla:" + password + "/x@host", Password: password})
	for what, got := range map[string]string{
		"error":        fmt.Sprint(wrong.Stats().Err),
		"echo":         fmt.Sprint(echo),
		"bad URL":      fmt.Sprint(bad),
		"Shared":       fmt.Sprintf("%v %+v %#v %s", wrong, wrong, wrong, wrong),
		"SharedStats":  fmt.Sprintf("%v %+v", wrong.Stats(), wrong.Stats()),
		"options":      fmt.Sprintf("%v %+v %#v", o, o, &o),
		"options, bad": fmt.Sprintf("%+v", SharedOptions{URL: "redis://karla:" + password + "/x@host"}),
	} {
		if strings.Contains(got, password) || strings.Contains(got, "karla") {
			t.Errorf("%s tells the password or the user: %s", what, got)
		}
		if got == "" || got == "<nil>" {
			t.Errorf("%s is %q", what, got)
		}
	}
}

func TestSharedKeepsToItsCommands(t *testing.T) {
	st := startStore(t)
	// The rights that the documentation asks for, and no others.
	st.do("ACL", "SETUSER", "limiter", "on", ">pw", "~mtls-proxy:rate:*", "+eval", "+evalsha", "+get", "+set", "+time")
	s := newTestShared(t, SharedOptions{URL: "unix://limiter@" + st.socket, Password: "pw", PerSecond: 1e-3, Burst: 5})
	if n := take(t, s, "alice"); n != 5 {
		t.Errorf("%d admitted; want 5", n)
	}
	list, _ := st.do("CLIENT", "LIST").(string)
	if n := strings.Count(list, "user=limiter"); n != 1 {
		t.Errorf("%d connections; want 1:\n%s", n, list)
	}
	stats, _ := st.do("INFO", "commandstats").(string)
	for _, unwanted := range []string{"setinfo", "setname", "maint", "tracking", "cmdstat_ping"} {
		if strings.Contains(strings.ToLower(stats), unwanted) {
			t.Errorf("the store was sent %s:\n%s", unwanted, stats)
		}
	}
}

func BenchmarkShared(b *testing.B) {
	st := startStore(b)
	b.Run("slice", func(b *testing.B) {
		s := newTestShared(b, SharedOptions{URL: st.url(), PerSecond: 1e9, Burst: 1e9})
		key := []byte("alice")
		b.ReportAllocs()
		for b.Loop() {
			s.Admit(key)
		}
		b.ReportMetric(float64(b.N)/float64(s.Stats().Trips), "admits/trip")
	})
	b.Run("parallel", func(b *testing.B) {
		s := newTestShared(b, SharedOptions{URL: st.url(), PerSecond: 1e9, Burst: 1e9})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				s.Admit([]byte{'k', byte(i)})
			}
		})
	})
	b.Run("trip", func(b *testing.B) { // a burst of one: each exchange asks the store
		s := newTestShared(b, SharedOptions{URL: st.url(), PerSecond: 1e9, Burst: 1})
		key := []byte("alice")
		b.ReportAllocs()
		for b.Loop() {
			s.Admit(key)
		}
	})
	b.Run("refused", func(b *testing.B) {
		s := newTestShared(b, SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: 1})
		key := []byte("alice")
		s.Admit(key)
		b.ReportAllocs()
		for b.Loop() {
			s.Admit(key)
		}
	})
	b.Run("away", func(b *testing.B) {
		s := newTestShared(b, SharedOptions{URL: "unix:///nowhere", PerSecond: 1e9, Burst: 1e9})
		key := []byte("alice")
		s.Admit(key)
		b.ReportAllocs()
		for b.Loop() {
			s.Admit(key)
		}
	})
}
