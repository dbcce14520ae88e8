package snapshot

import (
	"strings"
	"testing"
	"time"
)

// Several limits with one key are one series: two with the same labels would break the scrape.
func TestAdmissionCountsOfOneKeyAreOne(t *testing.T) {
	s := newSite(t)
	snap := s.build(t, s.one()+"[rate_limit]\n"+slow+"key = \"ip\"\n"+
		"[[route]]\npath_prefix = \"/a\"\nrate_limit = { requests_per_second = 1, key = \"ip\" }\n"+
		"[[route]]\nrate_limit = { requests_per_second = 1, key = \"header:X-Key\" }\n", nil)
	a := snap.Publication().Admission
	var keys []string
	for _, h := range a.Homeless {
		keys = append(keys, h.Key)
		if n := h.Count(); n != 0 {
			t.Errorf("%s: %d without a budget of their own before anybody came", h.Key, n)
		}
	}
	if got := strings.Join(keys, " "); got != "ip header:X-Key" {
		t.Errorf("keys = %s", got)
	}
	if a.Hopeless() != 0 || a.Store != nil {
		t.Errorf("refused at once: %d, store: %v; want none", a.Hopeless(), a.Store != nil)
	}
	s.metrics.Publish(snap.Publication())
	if got := s.scrape("mtls_proxy_rate_limit_homeless_total"); len(got) != 2 {
		t.Errorf("a scrape has %q, want two series", got)
	}
}

func TestAdmissionCountsHaveTheStoreWhereThereIsOne(t *testing.T) {
	s := newSite(t)
	snap := s.build(t, s.one()+"[rate_limit]\nshared = \"redis://127.0.0.1:1\"\n", nil)
	defer snap.Retire(nil)
	store := snap.Publication().Admission.Store
	if store == nil {
		t.Fatal("there is no store")
	}
	if _, ok := snap.Limits.Rate.Admit(time.Now(), nil); !ok {
		t.Error("without its store, the limit refuses the first request")
	}
	if st := store(); !st.Away || st.Without != 1 {
		t.Errorf("having asked a store that is not there: %+v", st)
	}
}
