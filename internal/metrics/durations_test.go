package metrics

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func written(t *testing.T, m prometheus.Metric) *dto.Histogram {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetHistogram()
}

// natives takes spans and deltas apart, as a Prometheus does.
func natives(h *dto.Histogram) map[int32]int64 {
	counts := make(map[int32]int64)
	at, n, next := int32(0), int64(0), 0
	for _, span := range h.GetPositiveSpan() {
		at += span.GetOffset()
		for range span.GetLength() {
			n += h.GetPositiveDelta()[next]
			next++
			if n > 0 {
				counts[at] = n
			}
			at++
		}
	}
	return counts
}

// The library's histogram is slower, and right.
func TestDurationsAreCountedAsTheLibraryDoes(t *testing.T) {
	vec := New(Options{}).durations
	ours, bounds := vec.with("r", "u"), vec.scale.bounds
	theirs := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "d", Buckets: bounds, NativeHistogramBucketFactor: 1.2})
	observe := func(d time.Duration) {
		ours.observe(d)
		theirs.Observe(d.Seconds())
	}
	for _, bound := range bounds { // to the nanosecond
		for _, near := range []time.Duration{-1, 0, 1} {
			observe(time.Duration(math.Round(bound*1e9)) + near)
		}
	}
	for octave := -14; octave < 20; octave++ {
		end := time.Duration(math.Exp2(float64(octave)) * 1e9)
		for _, near := range []time.Duration{-1, 1} {
			observe(end + near)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		observe(time.Duration(math.Exp(rnd.Float64()*30) * 1e3)) // from a microsecond to months
	}
	got, want := written(t, ours), written(t, theirs)
	if got.GetSampleCount() != want.GetSampleCount() {
		t.Errorf("count = %d, want %d", got.GetSampleCount(), want.GetSampleCount())
	}
	if diff := math.Abs(got.GetSampleSum() - want.GetSampleSum()); diff > 1e-6*float64(want.GetSampleCount()) {
		t.Errorf("sum = %v, want %v", got.GetSampleSum(), want.GetSampleSum())
	}
	for i, b := range want.GetBucket() {
		if g := got.GetBucket()[i]; g.GetUpperBound() != b.GetUpperBound() || g.GetCumulativeCount() != b.GetCumulativeCount() {
			t.Errorf("bucket %v: %d, want %d up to %v", g.GetUpperBound(), g.GetCumulativeCount(), b.GetCumulativeCount(), b.GetUpperBound())
		}
	}
	if got.GetSchema() != want.GetSchema() || got.GetZeroThreshold() != want.GetZeroThreshold() || got.GetZeroCount() != want.GetZeroCount() {
		t.Errorf("schema %d, zero %v: %d; want %d, %v: %d", got.GetSchema(), got.GetZeroThreshold(), got.GetZeroCount(),
			want.GetSchema(), want.GetZeroThreshold(), want.GetZeroCount())
	}
	g, w := natives(got), natives(want)
	for k := range w {
		if k >= firstNative && k < lastNative && g[k] != w[k] {
			t.Errorf("native bucket %d: %d, want %d", k, g[k], w[k])
		}
	}
	for k := range g {
		if k > firstNative && k < lastNative && w[k] == 0 {
			t.Errorf("native bucket %d: %d, want none", k, g[k])
		}
	}
}

func TestDurationsOutsideTheScaleAreCounted(t *testing.T) {
	d := New(Options{}).durations.with("r", "u")
	for _, t := range []time.Duration{-time.Second, 0, 1, math.MaxInt64} {
		d.observe(t)
	}
	h := written(t, d)
	if h.GetSampleCount() != 4 || h.GetBucket()[0].GetCumulativeCount() != 3 {
		t.Errorf("count = %d, %d of them short; want 4 and 3", h.GetSampleCount(), h.GetBucket()[0].GetCumulativeCount())
	}
	if n := natives(h); n[firstNative] != 3 || n[lastNative] != 1 {
		t.Errorf("native buckets = %v, want 3 in the first and 1 in the last", n)
	}
}
