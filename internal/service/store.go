package service

import "github.com/mtls-proxy/mtls-proxy/internal/snapshot"

// StoreStatus is how the store of a shared rate limit fares. Counts are since
// the limit was configured like this.
type StoreStatus struct {
	Away       bool   `json:"away"`
	Error      string `json:"error,omitempty"` // the last reason why it was
	Slices     uint64 `json:"slices"`          // of the budget that were asked for
	RoundTrips uint64 `json:"round_trips"`
	Failures   uint64 `json:"failures"` // to reach it, or to get an answer
	Missed     uint64 `json:"missed"`   // requests judged without it
	Keys       int    `json:"keys"`     // callers known here
}

func storeOf(snap *snapshot.Snapshot) *StoreStatus {
	s, shared := snap.Limits.Rate.Shared()
	if !shared {
		return nil
	}
	st := &StoreStatus{
		Away: s.Away, Slices: s.Asked, RoundTrips: s.Trips, Failures: s.Failed, Missed: s.Without, Keys: s.Keys,
	}
	if s.Err != nil {
		st.Error = firstLine(s.Err)
	}
	return st
}
