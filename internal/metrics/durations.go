package metrics

import (
	"maps"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// durationVec is a histogram of durations by labels, with classic and with native buckets. It counts in plain words: the
// library's looks the native bucket of each observation up in a map, for which it takes several times as long.
type durationVec struct {
	desc  *prometheus.Desc
	scale *scale
	few   func() bool // whether a series without an observation is shown

	mu     sync.Mutex // guards series
	series map[[2]string]*durations
}

// newDurationVec takes one or two labels.
func newDurationVec(name, help string, bounds []float64, few func() bool, labels ...string) *durationVec {
	return &durationVec{
		desc:   prometheus.NewDesc(name, help, labels, nil),
		scale:  newScale(bounds),
		few:    few,
		series: make(map[[2]string]*durations),
	}
}

// with returns the series for these labels, the same one until it is removed.
func (v *durationVec) with(labels ...string) *durations {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := key(labels)
	d := v.series[k]
	if d == nil {
		d = &durations{scale: v.scale, desc: v.desc, labels: labels, since: time.Now()}
		v.series[k] = d
	}
	return d
}

func (v *durationVec) remove(labels ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.series, key(labels))
}

// keep removes all series but those.
func (v *durationVec) keep(labels map[[2]string]bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.series, func(k [2]string, _ *durations) bool { return !labels[k] })
}

func key(labels []string) (k [2]string) {
	copy(k[:], labels)
	return k
}

// Describe implements prometheus.Collector.
func (v *durationVec) Describe(to chan<- *prometheus.Desc) { to <- v.desc }

// Collect implements prometheus.Collector.
func (v *durationVec) Collect(to chan<- prometheus.Metric) {
	v.mu.Lock()
	defer v.mu.Unlock()
	few := v.few()
	for _, d := range v.series {
		if few || d.counts.Load() != nil {
			to <- d
		}
	}
}

// Native buckets end at powers of the 2^schema-th root of 2, in seconds: 2^(k/4) for bucket k. What is beyond the first or the
// last one of a scale counts there.
const (
	nativeSchema = 2
	perOctave    = 1 << nativeSchema
	firstNative  = -20 * perOctave // a microsecond
	lastNative   = 24 * perOctave  // half a year
)

// scale is the cells that durations are counted in: the finest parts that the buckets of both kinds are made of.
type scale struct {
	bounds []float64 // of the classic buckets
	ends   []int64   // the longest duration of each cell, in nanoseconds
	from   [65]uint8 // by the number of bits of a duration: the first cell that may be its own

	native  []int // the native bucket of each cell
	classic []int // likewise the first classic one, len(bounds) for what is longer
}

func newScale(bounds []float64) *scale {
	s := &scale{bounds: bounds}
	natives := make([]int64, 0, lastNative-firstNative)
	for k := firstNative; k < lastNative; k++ {
		natives = append(natives, nanoseconds(math.Exp2(float64(k)/perOctave)))
	}
	classics := make([]int64, 0, len(bounds))
	for _, seconds := range bounds {
		classics = append(classics, nanoseconds(seconds))
	}
	s.ends = slices.Concat(natives, classics, []int64{math.MaxInt64})
	slices.Sort(s.ends)
	s.ends = slices.Compact(s.ends)
	for _, end := range s.ends {
		k, _ := slices.BinarySearch(natives, end)
		s.native = append(s.native, firstNative+k)
		k, _ = slices.BinarySearch(classics, end)
		s.classic = append(s.classic, k)
	}
	for n := 1; n < 64; n++ {
		s.from[n] = uint8(s.cell(0, 1<<(n-1)))
	}
	return s
}

// nanoseconds is the longest duration that is not above so many seconds. Whole ones stay whole.
func nanoseconds(seconds float64) int64 { return int64(math.Floor(seconds*1e9 + 1e-6)) }

// cell returns that of d, which is not before from.
func (s *scale) cell(from int, d int64) int {
	for d > s.ends[from] {
		from++
	}
	return from
}

// durations is one series. It does not lock, so a scrape may see an observation in the buckets and not yet in the sum.
type durations struct {
	scale  *scale
	sum    atomic.Uint64                   // microseconds
	counts atomic.Pointer[[]atomic.Uint64] // by cell; nil before the first observation, as thousands of routes may never have one

	desc   *prometheus.Desc
	labels []string
	since  time.Time
}

// observe counts t; what is negative counts as nothing.
func (d *durations) observe(t time.Duration) {
	counts := d.counts.Load()
	if counts == nil {
		counts = d.allocate()
	}
	t = max(t, 0)
	(*counts)[d.scale.cell(int(d.scale.from[bits.Len64(uint64(t))]), int64(t))].Add(1)
	d.sum.Add(uint64(t+time.Microsecond/2) / uint64(time.Microsecond))
}

func (d *durations) allocate() *[]atomic.Uint64 {
	counts := make([]atomic.Uint64, len(d.scale.ends))
	if d.counts.CompareAndSwap(nil, &counts) {
		return &counts
	}
	return d.counts.Load()
}

// Desc implements prometheus.Metric.
func (d *durations) Desc() *prometheus.Desc { return d.desc }

// Write implements prometheus.Metric: a classic histogram of the library, and the buckets of a native one.
func (d *durations) Write(to *dto.Metric) error {
	var total uint64
	native, classic := make(map[int]int64), make([]uint64, len(d.scale.bounds)+1)
	if counts := d.counts.Load(); counts != nil {
		for i := range *counts {
			if n := (*counts)[i].Load(); n > 0 {
				total += n
				native[d.scale.native[i]] += int64(n)
				classic[d.scale.classic[i]] += n
			}
		}
	}
	sum, cumulative := float64(d.sum.Load())/1e6, uint64(0)
	buckets := make(map[float64]uint64, len(d.scale.bounds))
	for i, bound := range d.scale.bounds {
		cumulative += classic[i]
		buckets[bound] = cumulative
	}
	c, err := prometheus.NewConstHistogramWithCreatedTimestamp(d.desc, total, sum, buckets, d.since, d.labels...)
	if err != nil {
		return err
	}
	n, err := prometheus.NewConstNativeHistogram(d.desc, total, sum, native, nil, 0, nativeSchema,
		prometheus.DefNativeHistogramZeroThreshold, d.since, d.labels...)
	if err != nil {
		return err
	}
	var other dto.Metric
	if err := n.Write(&other); err != nil {
		return err
	}
	if err := c.Write(to); err != nil {
		return err
	}
	h, o := to.GetHistogram(), other.GetHistogram()
	h.Schema, h.ZeroThreshold, h.ZeroCount = o.Schema, o.ZeroThreshold, o.ZeroCount
	h.PositiveSpan, h.PositiveDelta = o.PositiveSpan, o.PositiveDelta
	return nil
}
