package snapshot

import (
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
)

// Homeless returns how many requests were judged by a budget that callers share, because there was no room for one more.
func (r *Rate) Homeless() uint64 {
	if r == nil || r.budget.keys == nil {
		return 0
	}
	return r.budget.keys.Homeless()
}

// admissionCounts is what the limits of s count. Those of several rate limits with one key are one count.
func (s *Snapshot) admissionCounts() metrics.Admission {
	a := metrics.Admission{Hopeless: s.Limits.Requests.Hopeless}
	var keys []string
	byKey := make(map[string][]*Rate)
	note := func(r *Rate) {
		if byKey[r.Key] == nil {
			keys = append(keys, r.Key)
		}
		byKey[r.Key] = append(byKey[r.Key], r)
	}
	note(s.Limits.Rate)
	for _, r := range s.Routes {
		if r.Rate != nil {
			note(r.Rate)
		}
	}
	for _, key := range keys {
		a.Homeless = append(a.Homeless, metrics.Homeless{Key: key, Count: func() (sum uint64) {
			for _, r := range byKey[key] {
				sum += r.Homeless()
			}
			return sum
		}})
	}
	if _, shared := s.Limits.Rate.Shared(); shared {
		a.Store = func() metrics.StoreStats {
			st, _ := s.Limits.Rate.Shared()
			return metrics.StoreStats{Away: st.Away, Slices: st.Asked, Trips: st.Trips, Failed: st.Failed, Without: st.Without}
		}
	}
	return a
}
