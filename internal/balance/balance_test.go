package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fixture is a Set with a clock of its own and chance that repeats.
type fixture struct {
	*Set[int]
	now time.Time
}

func newFixture(seed uint64, o Options[int], specs ...Spec) *fixture {
	s := New(o)
	s.random = rand.New(rand.NewPCG(seed, 7)).Uint64
	f := &fixture{s, s.start}
	s.Update(f.now, specs)
	return f
}

func (f *fixture) pass(d time.Duration) { f.now = f.now.Add(d) }

func (f *fixture) find(id string) *Endpoint[int] { return f.list.Load().find(id) }

// fail has n tries in a row fail with the endpoint of that ID.
func (f *fixture) fail(id string, n int) {
	for range n {
		f.find(id).Begin().End(f.now, Failure)
	}
}

func (f *fixture) succeed(id string) { f.find(id).Begin().End(f.now, Success) }

func (f *fixture) state(id string) State { return f.find(id).Status(f.now).State }

func (f *fixture) wantState(t *testing.T, id string, want State, when string) {
	t.Helper()
	if got := f.state(id); got != want {
		t.Fatalf("%s %s is %v; want %v", when, id, got, want)
	}
}

// share counts how often each endpoint is chosen in n exchanges one after the other.
func (f *fixture) share(n int) map[string]float64 {
	share := make(map[string]float64)
	for range n {
		e, _ := f.Pick(f.now, nil)
		e.Begin().End(f.now, Success)
		share[e.ID] += 1 / float64(n)
	}
	return share
}

// order is the IDs of n choices.
func (f *fixture) order(n int) string {
	var ids []string
	for range n {
		e, _ := f.Pick(f.now, nil)
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, "")
}

func abc() []Spec { return []Spec{{ID: "a"}, {ID: "b"}, {ID: "c"}} }

func numbered(n int) (specs []Spec) {
	for i := range n {
		specs = append(specs, Spec{ID: fmt.Sprint("e", i)})
	}
	return specs
}

var policies = []Policy{LeastRequests, RoundRobin, First}

func near(got, want, off float64) bool { return math.Abs(got-want) <= off }

func TestPickOfAnEmptySet(t *testing.T) {
	f := newFixture(1, Options[int]{})
	if e, forced := f.Pick(f.now, nil); e != nil || forced {
		t.Errorf("Pick() = %v, %v; want nil, false", e, forced)
	}
}

// What a choice must hold for whatever state endpoints are in, with any policy.
func TestPickPrefersEndpointsThatAreIn(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		for _, policy := range policies {
			specs := numbered(1 + r.IntN(20))
			for i := range specs {
				specs[i].Tier, specs[i].Weight = r.IntN(3), r.IntN(100)
			}
			f := newFixture(seed, Options[int]{Policy: policy}, specs...)
			f.pass(time.Hour)
			for range 50 {
				for _, e := range f.Endpoints() {
					switch r.IntN(12) {
					case 0:
						e.SetHealthy(f.now, false)
					case 1:
						e.SetHealthy(f.now, true)
					case 2:
						f.Drain(e.ID)
					case 3:
						f.Resume(f.now, e.ID)
					case 4:
						f.fail(e.ID, 5)
					case 5:
						e.Begin()
					}
				}
				f.pass(time.Duration(r.Int64N(int64(10 * time.Second))))
				var tried []*Endpoint[int]
				for _, e := range f.Endpoints() {
					if r.IntN(6) == 0 {
						tried = append(tried, e)
					}
				}
				e, forced := f.Pick(f.now, tried)
				checkPick(t, f, e, forced, tried)
			}
		}
	}
}

// checkPick compares a choice with the best that there was to choose.
func checkPick(t *testing.T, f *fixture, e *Endpoint[int], forced bool, tried []*Endpoint[int]) {
	t.Helper()
	if e == nil {
		t.Fatal("nothing was chosen")
	}
	level := func(e *Endpoint[int]) (n int) {
		switch e.Status(f.now).State {
		case In:
		case Ejected, Unhealthy:
			n = 2
		case Drained:
			n = 4
		}
		if f.Len() > 1 && slices.Contains(tried, e) {
			n++
		}
		return n
	}
	tier := func(e *Endpoint[int]) int {
		for spec, x := range f.Endpoints() {
			if x == e {
				return spec.Tier
			}
		}
		return -1
	}
	for _, x := range f.Endpoints() {
		// While one that comes first is slow to start, First sends the rest to those after it, of whatever tier.
		tiered := f.o.Policy != First || level(e) > 0
		if level(x) < level(e) || tiered && level(x) == level(e) && tier(x) < tier(e) {
			t.Fatalf("policy %v chose %s (level %d, tier %d), where %s (level %d, tier %d) was to be had",
				f.o.Policy, e.ID, level(e), tier(e), x.ID, level(x), tier(x))
		}
	}
	if want := level(e) >= 2; forced != want {
		t.Fatalf("forced = %v with an endpoint of level %d", forced, level(e))
	}
}

func TestLeastRequestsHonoursWeightsWhenIdle(t *testing.T) {
	for _, n := range []int{1, 10} { // with few endpoints and with many
		var specs []Spec
		for i := range n {
			specs = append(specs, Spec{ID: fmt.Sprint("light", i), Weight: 1}, Spec{ID: fmt.Sprint("heavy", i), Weight: 4})
		}
		f := newFixture(1, Options[int]{}, specs...)
		var heavy float64
		for id, share := range f.share(20000) {
			if strings.HasPrefix(id, "heavy") {
				heavy += share
			}
		}
		if !near(heavy, 0.8, 0.02) {
			t.Errorf("%d pairs: those of weight 4 get %.3f beside those of weight 1; want 0.8", n, heavy)
		}
	}
}

func TestLeastRequestsHonoursWeightsWhenBusy(t *testing.T) {
	f := newFixture(1, Options[int]{}, Spec{ID: "a", Weight: 1}, Spec{ID: "b", Weight: 2}, Spec{ID: "c", Weight: 5})
	busy := make([]Try[int], 160)
	for i := range busy {
		e, _ := f.Pick(f.now, nil)
		busy[i] = e.Begin()
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		i := r.IntN(len(busy))
		busy[i].End(f.now, Success)
		e, _ := f.Pick(f.now, nil)
		busy[i] = e.Begin()
	}
	for id, want := range map[string]int{"a": 20, "b": 40, "c": 100} {
		if got := f.find(id).Outstanding(); !near(float64(got), float64(want), 8) {
			t.Errorf("%s has %d exchanges of 160; want about %d", id, got, want)
		}
	}
}

func TestLeastRequestsAvoidsTheOneThatHangs(t *testing.T) {
	for _, weight := range []int{1, 10} {
		f := newFixture(1, Options[int]{}, Spec{ID: "hangs", Weight: weight}, Spec{ID: "works", Weight: 1})
		hung := 0
		for range 1000 {
			e, _ := f.Pick(f.now, nil)
			try := e.Begin()
			if e.ID == "hangs" {
				hung++
			} else {
				try.End(f.now, Success)
			}
		}
		if hung > weight {
			t.Errorf("%d of 1000 exchanges went to one of weight %d that answers none", hung, weight)
		}
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	f := newFixture(1, Options[int]{Policy: RoundRobin}, abc()...)
	if got := f.order(7); got != "abcabca" {
		t.Errorf("order %q; want abcabca", got)
	}
	f = newFixture(1, Options[int]{Policy: RoundRobin}, Spec{ID: "a", Weight: 5}, Spec{ID: "b", Weight: 1}, Spec{ID: "c", Weight: 1})
	if got := f.order(14); got != "aabacaaaabacaa" {
		t.Errorf("order by weights 5, 1, 1 is %q; want aabacaaaabacaa", got)
	}
}

func TestRoundRobinSharesTheTurnsOfThoseThatAreOut(t *testing.T) {
	f := newFixture(1, Options[int]{Policy: RoundRobin}, abc()...)
	f.find("a").SetHealthy(f.now, false)
	if got := f.order(6); got != "bcbcbc" {
		t.Errorf("order %q; want bcbcbc", got)
	}
}

func TestRoundRobinHonoursOddWeights(t *testing.T) {
	f := newFixture(1, Options[int]{Policy: RoundRobin}, Spec{ID: "a", Weight: 65535}, Spec{ID: "b", Weight: 32768}, Spec{ID: "c", Weight: 0})
	share := f.share(30000)
	if !near(share["a"], 0.667, 0.005) || !near(share["b"], 0.333, 0.005) || share["c"] == 0 || share["c"] > 0.005 {
		t.Errorf("shares %v; want about 0.667, 0.333 and very little", share)
	}
}

func TestFirstKeepsToTheOrder(t *testing.T) {
	f := newFixture(1, Options[int]{Policy: First, SlowStart: -1}, abc()...)
	if got := f.order(3); got != "aaa" {
		t.Errorf("order %q; want aaa", got)
	}
	f.find("a").SetHealthy(f.now, false)
	if got := f.order(3); got != "bbb" {
		t.Errorf("order without a is %q; want bbb", got)
	}
	f.find("a").SetHealthy(f.now, true)
	if got := f.order(3); got != "aaa" {
		t.Errorf("order with a again is %q; want aaa", got)
	}
	if e, _ := f.Pick(f.now, []*Endpoint[int]{f.find("a")}); e.ID != "b" {
		t.Errorf("having tried a, it chose %s; want b", e.ID)
	}
}

func TestTiersAreUsedInOrder(t *testing.T) {
	for _, policy := range policies {
		f := newFixture(1, Options[int]{Policy: policy}, Spec{ID: "backup", Tier: 10}, Spec{ID: "a", Tier: 1}, Spec{ID: "b", Tier: 1})
		if share := f.share(200); share["backup"] > 0 {
			t.Errorf("policy %v: the backup gets %.2f while others are in", policy, share["backup"])
		}
		f.find("a").SetHealthy(f.now, false)
		f.find("b").SetHealthy(f.now, false)
		if share := f.share(200); !near(share["backup"], 1, 0.001) {
			t.Errorf("policy %v: the backup gets %.2f while no other is in", policy, share["backup"])
		}
	}
}

func TestShareGrowsDuringSlowStart(t *testing.T) {
	for _, policy := range policies {
		f := newFixture(1, Options[int]{Policy: policy, SlowStart: 30 * time.Second}, abc()...)
		f.find("a").SetHealthy(f.now, false)
		f.pass(time.Hour)
		if !f.find("a").SetHealthy(f.now, true) || f.find("a").SetHealthy(f.now, true) {
			t.Error("SetHealthy does not tell the change from its repetition")
		}
		before := 0.0
		for _, after := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 30 * time.Second} {
			got := f.share(20000)["a"]
			part := max(0.1, after.Seconds()/30)
			want := part / (2 + part) // beside b and c
			if policy == First {
				want = part
			}
			if !near(got, want, 0.02) || got <= before {
				t.Errorf("policy %v, %v after it came back: share %.3f; want %.3f, and more than %.3f", policy, after, got, want, before)
			}
			before = got
			f.pass(10 * time.Second)
		}
	}
}

func TestShareOfThoseThatComeBackTogetherIsEqual(t *testing.T) {
	for _, policy := range []Policy{LeastRequests, RoundRobin} {
		f := newFixture(1, Options[int]{Policy: policy}, abc()...)
		for _, id := range []string{"a", "b", "c"} {
			f.find(id).SetHealthy(f.now, false)
			f.find(id).SetHealthy(f.now, true)
		}
		for id, share := range f.share(20000) {
			if !near(share, 1.0/3, 0.02) {
				t.Errorf("policy %v: share of %s is %.3f; want a third", policy, id, share)
			}
		}
	}
}

func TestEndpointIsEjectedAfterFailuresInARow(t *testing.T) {
	var told []string
	f := newFixture(1, Options[int]{Ejected: func(e *Endpoint[int], d time.Duration) {
		told = append(told, fmt.Sprint(e.ID, " ", d))
	}}, abc()...)
	f.fail("a", 4)
	f.succeed("a")
	f.fail("a", 4)
	f.find("a").Begin().End(f.now, Abandoned)
	f.wantState(t, "a", In, "after 4 failures, a success and 4 failures")
	f.fail("a", 1)
	f.wantState(t, "a", Ejected, "after 5 failures in a row")
	if got, want := f.find("a").Status(f.now).Until, f.now.Add(5*time.Second); !got.Equal(want) {
		t.Errorf("ejected until %v; want %v", got, want)
	}
	if share := f.share(300); share["a"] > 0 {
		t.Errorf("ejected, it gets %.2f", share["a"])
	}
	f.pass(5 * time.Second)
	f.wantState(t, "a", In, "5 s later")
	if want := []string{"a 5s"}; !slices.Equal(told, want) {
		t.Errorf("told %v; want %v", told, want)
	}
}

func TestEjectionsGrowUntilTheEndpointStaysIn(t *testing.T) {
	var last time.Duration
	f := newFixture(1, Options[int]{EjectFor: time.Second, EjectMax: 5 * time.Second,
		Ejected: func(_ *Endpoint[int], d time.Duration) { last = d }}, abc()...)
	f.fail("a", 5)
	for _, seconds := range []int{1, 2, 4, 5, 5, 5} {
		if want := time.Duration(seconds) * time.Second; last != want {
			t.Fatalf("ejected for %v; want %v", last, want)
		}
		f.pass(last)
		last = 0
		f.fail("a", 1) // one suffices for an endpoint that has not succeeded since
	}
	f.pass(5 * time.Second)
	f.succeed("a")
	f.pass(5 * time.Second)
	last = 0
	f.fail("a", 4)
	if last != 0 {
		t.Errorf("ejected after 4 failures that followed a success")
	}
	f.fail("a", 1)
	if last != time.Second {
		t.Errorf("after it stayed in for EjectMax, ejected for %v; want 1s", last)
	}
}

func TestRecoverEndsAnEjection(t *testing.T) {
	var last time.Duration
	f := newFixture(1, Options[int]{EjectFor: time.Second, Ejected: func(_ *Endpoint[int], d time.Duration) { last = d }}, abc()...)
	if f.find("a").Recover(f.now) {
		t.Error("one that is in recovered")
	}
	f.fail("a", 5)
	for range 3 {
		f.pass(time.Millisecond)
		if !f.find("a").Recover(f.now) {
			t.Error("it did not recover")
		}
		f.wantState(t, "a", In, "after it recovered")
		f.fail("a", 1)
		f.wantState(t, "a", Ejected, "after one more failure")
		if last != time.Second {
			t.Errorf("ejected for %v; want 1s, as an ejection that ended early does not count", last)
		}
	}
}

func TestEjectionTimeDoesNotOverflow(t *testing.T) {
	f := newFixture(1, Options[int]{EjectFor: time.Hour, EjectMax: math.MaxInt64 / 4}, abc()...)
	f.fail("a", 5)
	for range 100 {
		until := f.find("a").Status(f.now).Until
		if d := until.Sub(f.now); d < time.Hour {
			t.Fatalf("ejected for %v", d)
		}
		f.now = until
		if f.now.Sub(f.start) > math.MaxInt64/8 {
			return
		}
		f.fail("a", 1)
	}
}

func TestOnlyAShareIsEjectedAtOnce(t *testing.T) {
	for _, tt := range []struct{ endpoints, want int }{{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {10, 5}} {
		f := newFixture(1, Options[int]{}, numbered(tt.endpoints)...)
		for range 3 {
			for _, e := range f.Endpoints() {
				f.fail(e.ID, 5)
			}
		}
		got := 0
		for _, e := range f.Endpoints() {
			if e.Status(f.now).State == Ejected {
				got++
			}
		}
		if got != tt.want {
			t.Errorf("%d of %d are ejected when all fail; want %d", got, tt.endpoints, tt.want)
		}
	}
}

// A tier that fails as a whole goes as a whole when others stand by; those that stand by keep their own share.
func TestAWholeTierIsEjectedWhereAnotherStandsBy(t *testing.T) {
	for _, policy := range policies {
		f := newFixture(1, Options[int]{Policy: policy, SlowStart: -1}, Spec{ID: "a"}, Spec{ID: "b"}, Spec{ID: "c"}, Spec{ID: "d"},
			Spec{ID: "x", Tier: 1}, Spec{ID: "y", Tier: 1})
		for _, id := range []string{"a", "b", "c", "d"} {
			f.fail(id, 5)
			f.wantState(t, id, Ejected, "having failed")
		}
		for range 20 {
			if e, forced := f.Pick(f.now, nil); forced || e.ID != "x" && e.ID != "y" {
				t.Fatalf("policy %v: Pick() = %s, %v while the backups are in", policy, e.ID, forced)
			}
		}
		f.fail("x", 5)
		f.wantState(t, "x", Ejected, "having failed")
		f.fail("y", 5)
		f.wantState(t, "y", In, "being the last one,")
	}
}

// When all are out, those of the first tier are tried before the backups, and drained ones last.
func TestOfThoseThatAreOutTheFirstTierIsTried(t *testing.T) {
	for _, policy := range policies {
		f := newFixture(1, Options[int]{Policy: policy}, Spec{ID: "a"}, Spec{ID: "b"}, Spec{ID: "x", Tier: 1})
		f.Drain("a")
		f.find("b").SetHealthy(f.now, false)
		f.find("x").SetHealthy(f.now, false)
		var tried []*Endpoint[int]
		for _, want := range []string{"b", "x", "b"} {
			e, forced := f.Pick(f.now, tried)
			if e.ID != want || !forced {
				t.Errorf("policy %v: having tried %d, Pick() = %s, %v; want %s, forced", policy, len(tried), e.ID, forced, want)
			}
			tried = append(tried, e)
		}
	}
}

func TestTheLastOneInIsNotEjected(t *testing.T) {
	f := newFixture(1, Options[int]{EjectShare: 1}, abc()...)
	f.find("a").SetHealthy(f.now, false)
	f.Drain("b")
	f.fail("c", 100)
	f.wantState(t, "c", In, "being the last one,")
	f.find("a").SetHealthy(f.now, true)
	f.fail("c", 1)
	f.wantState(t, "c", Ejected, "no longer the last one,")
}

// Otherwise all requests would go to the one that is down, while two that work wait for their time.
func TestEjectionsEndWhenTheLastOneInFails(t *testing.T) {
	for _, policy := range policies {
		f := newFixture(1, Options[int]{Policy: policy}, abc()...)
		f.fail("a", 5)
		f.fail("b", 5)
		f.pass(time.Second)
		f.fail("c", 4)
		f.wantState(t, "a", Ejected, "before the last one has failed 5 times,")
		f.fail("c", 1)
		f.wantState(t, "a", In, "the last one having failed,")
		f.wantState(t, "b", In, "the last one having failed,")
		f.fail("c", 1)
		f.wantState(t, "c", Ejected, "no longer the last one,")
		if order := f.order(20); strings.Contains(order, "c") {
			t.Errorf("policy %v: chose %s after c was ejected", policy, order)
		}
	}
}

func TestEjectionsEndEarlyOnlyOnceInAWhile(t *testing.T) {
	var told []time.Duration
	f := newFixture(1, Options[int]{Ejected: func(_ *Endpoint[int], d time.Duration) { told = append(told, d) }}, Spec{ID: "a"}, Spec{ID: "b"})
	f.fail("a", 5)
	f.fail("b", 5)
	f.fail("a", 1)
	f.wantState(t, "a", Ejected, "having failed again")
	f.fail("b", 100)
	f.wantState(t, "a", Ejected, "having just had its chance,")
	if want := []time.Duration{5 * time.Second, 5 * time.Second}; !slices.Equal(told, want) {
		t.Errorf("ejected for %v; want %v: the first was cut short", told, want)
	}
	f.pass(5 * time.Second)
	f.fail("a", 1)
	f.fail("b", 1)
	f.wantState(t, "a", In, "the last one having failed 5 s later,")
}

func TestOthersThatAreDrainedStayOutWhenTheLastOneInFails(t *testing.T) {
	f := newFixture(1, Options[int]{}, abc()...)
	f.fail("a", 5)
	f.fail("b", 5)
	f.Drain("a")
	f.find("b").SetHealthy(f.now, false)
	f.fail("c", 5)
	f.wantState(t, "a", Drained, "the last one having failed,")
	f.wantState(t, "b", Unhealthy, "the last one having failed,")
}

func TestTriesFromBeforeTheEjectionSayNothing(t *testing.T) {
	f := newFixture(1, Options[int]{}, abc()...)
	var hung []Try[int]
	for range 20 {
		hung = append(hung, f.find("a").Begin())
	}
	f.fail("a", 5)
	f.pass(5 * time.Second)
	f.succeed("a")
	for _, try := range hung {
		try.End(f.now, Failure)
	}
	f.wantState(t, "a", In, "after old tries failed")
	if s := f.find("a").Status(f.now); s.Outstanding != 0 || s.Failures != 0 {
		t.Errorf("Status() = %+v; want nothing outstanding and no failures", s)
	}
	Try[int]{}.End(f.now, Failure)
}

func TestUpdateKeepsThoseThatStay(t *testing.T) {
	opened := 0
	f := newFixture(1, Options[int]{Open: func(string) int { opened++; return opened }}, abc()...)
	a, b := f.find("a"), f.find("b")
	f.fail("b", 5)
	try := a.Begin()
	left := f.Update(f.now, []Spec{{ID: "b", Weight: 3}, {ID: "d"}, {ID: "b", Weight: 4}, {ID: "b", Tier: 1}})
	var ids []string
	for _, e := range left {
		ids = append(ids, e.ID)
	}
	if got := strings.Join(ids, " "); got != "a c" {
		t.Errorf("left: %q; want a c", got)
	}
	ids = nil
	for spec, e := range f.Endpoints() {
		ids = append(ids, fmt.Sprintf("%s weight %d data %d", e.ID, spec.Weight, e.Data))
	}
	if want := []string{"b weight 7 data 2", "d weight 0 data 4"}; !slices.Equal(ids, want) {
		t.Errorf("endpoints %q; want %q", ids, want)
	}
	if f.find("b") != b {
		t.Error("the endpoint that stayed was made anew")
	}
	f.wantState(t, "b", Ejected, "after the update")
	if got := f.find("d").Status(f.now).Share; !near(got, 0.1, 0.001) {
		t.Errorf("share of the one that joined is %v; want 0.1", got)
	}
	try.End(f.now, Failure)
	if got := a.Outstanding(); got != 0 {
		t.Errorf("%d outstanding with the one that left; want 0", got)
	}
	for range 10 {
		a.Begin().End(f.now, Failure)
	}
	if got := a.Status(f.now).State; got != In {
		t.Errorf("the one that left is %v; want it left alone", got)
	}
	if left := f.Update(f.now, nil); len(left) != 2 || f.Len() != 0 {
		t.Errorf("an empty update left %d endpoints, and %d went", f.Len(), len(left))
	}
}

func TestDrainLastsUntilResume(t *testing.T) {
	f := newFixture(1, Options[int]{}, abc()...)
	if f.Drain("x") || f.Resume(f.now, "a") {
		t.Error("drained what is not there, or resumed what was not drained")
	}
	for range 2 {
		if !f.Drain("a") {
			t.Error("Drain(a) = false; want true, also when it is drained already")
		}
	}
	f.wantState(t, "a", Drained, "after Drain")
	f.Update(f.now, abc()[1:])
	f.Update(f.now, abc())
	f.wantState(t, "a", Drained, "having left and joined,")
	f.pass(time.Hour)
	if !f.Resume(f.now, "a") {
		t.Error("Resume(a) = false; want true")
	}
	f.wantState(t, "a", In, "after Resume")
	if got := f.find("a").Status(f.now).Share; !near(got, 0.1, 0.001) {
		t.Errorf("share after Resume is %v; want 0.1", got)
	}
}

func TestSetUnderConcurrentUse(t *testing.T) {
	for _, policy := range policies {
		s := New(Options[*int]{Policy: policy, EjectAfter: 2, EjectFor: time.Microsecond, EjectMax: time.Millisecond,
			Open: func(string) *int { return new(int) }})
		s.Update(s.start, specsOf(0))
		var group sync.WaitGroup
		for g := range 4 {
			group.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 5))
				for i := range 3000 {
					now := s.start.Add(time.Duration(i) * time.Microsecond)
					e, _ := s.Pick(now, nil)
					other, _ := s.Pick(now, []*Endpoint[*int]{e})
					if e.Data == nil || other.Data == nil {
						t.Error("an endpoint without its data")
						return
					}
					a, b := e.Begin(), other.Begin()
					a.End(now, Outcome(r.IntN(3)))
					b.End(now, Outcome(r.IntN(3)))
				}
			})
		}
		group.Go(func() {
			r := rand.New(rand.NewPCG(9, 5))
			all := make(map[*Endpoint[*int]]bool)
			for i := range 1000 {
				now := s.start.Add(time.Duration(i) * 3 * time.Microsecond)
				for _, e := range s.Update(now, specsOf(r.IntN(4))) {
					all[e] = true
				}
				for _, e := range s.Endpoints() {
					all[e] = true
					e.SetHealthy(now, r.IntN(2) == 0)
					e.Status(now)
					if r.IntN(4) == 0 {
						s.Drain(e.ID)
					} else {
						s.Resume(now, e.ID)
					}
				}
			}
		})
		group.Wait()
		for _, e := range s.Endpoints() {
			if n := e.Outstanding(); n != 0 {
				t.Errorf("policy %v: %d outstanding with %s after all have ended", policy, n, e.ID)
			}
		}
	}
}

// specsOf returns a set of a few, which differ by n.
func specsOf(n int) []Spec {
	return []Spec{{ID: "a", Weight: n}, {ID: fmt.Sprint("b", n%2), Weight: 2}, {ID: fmt.Sprint("c", n), Tier: n % 2}, {ID: "d"}}
}

func TestExchangeAllocatesNothing(t *testing.T) {
	for _, policy := range policies {
		for _, n := range []int{1, 3, 100} {
			s := New(Options[int]{Policy: policy})
			now := s.start
			s.Update(now, numbered(n))
			var tried [2]*Endpoint[int]
			got := testing.AllocsPerRun(100, func() {
				tried[0], _ = s.Pick(now, nil)
				tried[1], _ = s.Pick(now, tried[:1])
				tried[0].Begin().End(now, Success)
				tried[1].Begin().End(now, Abandoned)
			})
			if got != 0 {
				t.Errorf("policy %v, %d endpoints: an exchange with a second try allocates %v times", policy, n, got)
			}
		}
	}
}

func benchmarkSet(b *testing.B, policy Policy, specs []Spec) {
	b.Helper()
	s := New(Options[int]{Policy: policy})
	now := s.start
	s.Update(now, specs)
	b.ReportAllocs()
	for b.Loop() {
		e, _ := s.Pick(now, nil)
		e.Begin().End(now, Success)
	}
}

func BenchmarkExchange(b *testing.B) {
	weighted := numbered(100)
	for i := range weighted {
		weighted[i].Weight = i
	}
	for _, bb := range []struct {
		name   string
		policy Policy
		specs  []Spec
	}{
		{"only", LeastRequests, numbered(1)},
		{"least_requests/3", LeastRequests, numbered(3)},
		{"least_requests/100", LeastRequests, numbered(100)},
		{"least_requests/100weighted", LeastRequests, weighted},
		{"round_robin/3", RoundRobin, numbered(3)},
		{"round_robin/100weighted", RoundRobin, weighted},
		{"first/3", First, numbered(3)},
	} {
		b.Run(bb.name, func(b *testing.B) { benchmarkSet(b, bb.policy, bb.specs) })
	}
}

func BenchmarkExchangeParallel(b *testing.B) {
	s := New(Options[int]{})
	now := s.start
	s.Update(now, numbered(3))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e, _ := s.Pick(now, nil)
			e.Begin().End(now, Success)
		}
	})
}

func TestDrainsOutliveTheirSet(t *testing.T) {
	old, now := New(Options[int]{}), time.Now()
	old.Update(now, []Spec{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "c", Weight: 1}})
	old.Drain("c")
	old.Drain("b")
	if got, want := old.Drained(), []string{"b", "c"}; !slices.Equal(got, want) {
		t.Fatalf("Drained() = %q, want %q", got, want)
	}
	s := New(Options[int]{})
	s.Update(now, []Spec{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}})
	s.KeepDrained(old.Drained())
	s.Update(now, []Spec{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "c", Weight: 1}})
	for spec, e := range s.Endpoints() {
		want := Drained
		if spec.ID == "a" {
			want = In
		}
		if got := e.Status(now).State; got != want {
			t.Errorf("%s is %v, want %v", spec.ID, got, want)
		}
	}
	if !s.Resume(now, "c") {
		t.Error("c cannot be resumed")
	}
}
