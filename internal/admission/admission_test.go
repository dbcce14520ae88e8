package admission

import (
	"testing"
	"testing/synctest"
	"time"
)

func admit(t *testing.T, b *Bucket, n int) {
	t.Helper()
	for i := range n {
		if retry, ok := b.Admit(time.Now()); !ok {
			t.Fatalf("Admit() number %d = %v, false; want it admitted", i+1, retry)
		}
	}
}

func TestBucketAdmitsItsBurstAndThenItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(2, 3)
		admit(t, b, 3)
		retry, ok := b.Admit(time.Now())
		if ok || retry != 500*time.Millisecond {
			t.Fatalf("Admit() of an empty bucket = %v, %v; want 500ms, false", retry, ok)
		}
		time.Sleep(retry - time.Nanosecond)
		if retry, ok := b.Admit(time.Now()); ok || retry <= 0 || retry > 10 {
			t.Errorf("Admit() a nanosecond early = %v, %v; want about 1ns, false", retry, ok)
		}
		time.Sleep(10 * time.Nanosecond)
		admit(t, b, 1)
	})
}

func TestBucketWaitIsLongEnoughAtOddRates(t *testing.T) {
	for _, perSecond := range []float64{0.3, 1, 3, 7, 99, 333, 12345.678, 1e9} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBucket(perSecond, 1)
			for range 20 {
				b.Admit(time.Now())
				retry, ok := b.Admit(time.Now())
				if ok {
					t.Fatalf("%v/s: two admitted from a burst of one", perSecond)
				}
				time.Sleep(retry)
				if again, ok := b.Admit(time.Now()); !ok {
					t.Fatalf("%v/s: refused after waiting %v, told to wait another %v", perSecond, retry, again)
				}
			}
		})
	}
}

func TestBucketOfRateZeroAdmitsEverything(t *testing.T) {
	b := NewBucket(0, 0)
	admit(t, b, 10000)
	if used, limit := b.Level(); used != 0 || limit != 0 {
		t.Errorf("Level() = %v, %v; want 0, 0: there is no limit", used, limit)
	}
}

func TestBucketLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(10, 4)
		admit(t, b, 3)
		if used, limit := b.Level(); used != 3 || limit != 4 {
			t.Errorf("Level() = %v, %v; want 3, 4", used, limit)
		}
		time.Sleep(time.Hour)
		if used, limit := b.Level(); used != 0 || limit != 4 {
			t.Errorf("Level() an hour later = %v, %v; want 0, 4", used, limit)
		}
	})
}

func TestBucketKeepsItsLevelWhenReconfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(1, 10)
		admit(t, b, 8)
		b.Reconfigure(2, 20)
		if used, limit := b.Level(); used != 18 || limit != 20 {
			t.Errorf("Level() = %v, %v; want 18, 20: two tokens were left", used, limit)
		}
		admit(t, b, 2)
		if retry, ok := b.Admit(time.Now()); ok || retry != 500*time.Millisecond {
			t.Errorf("Admit() = %v, %v; want 500ms, false, by the new rate", retry, ok)
		}
		b.Reconfigure(0, 0)
		admit(t, b, 100)
		b.Reconfigure(1, 2)
		admit(t, b, 2)
		if _, ok := b.Admit(time.Now()); ok {
			t.Error("switched on again, it admits more than its burst")
		}
	})
}

func TestAdmitAllocatesNothing(t *testing.T) {
	full, empty := NewBucket(1e9, 1000000), NewBucket(1e-9, 1)
	empty.Admit(time.Now())
	for name, b := range map[string]*Bucket{"full": full, "empty": empty} {
		if n := testing.AllocsPerRun(100, func() { b.Admit(time.Now()) }); n != 0 {
			t.Errorf("Admit() of a bucket that is %s allocates %v times", name, n)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	bucket := NewBucket(1e9, 1e9)
	b.ReportAllocs()
	for b.Loop() {
		bucket.Admit(time.Now())
	}
}
