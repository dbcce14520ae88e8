package upstream

import "time"

// EndpointStatus is how an Endpoint is.
type EndpointStatus struct {
	Address     string    // with the name that it was found under: name@ip:port
	State       string    // in, ejected, unhealthy, drained
	Backup      bool      // there are others that go first
	Outstanding int       // exchanges that use it
	Failures    int       // in a row
	Idle        int       // connections that wait for an exchange
	Until       time.Time // when the ejection ends; zero when it is not ejected
	Refused     uint64    // exchanges that did not queue for it, because max_active would not have let them in in time
	Check       *Checked  // nil: it was not checked yet
}

// Checked is the result of a health check. It does not change.
type Checked struct {
	At  time.Time
	Err error // nil: healthy
}

// Endpoints returns how the endpoints are, in order of preference.
func (u *Upstream) Endpoints() []EndpointStatus {
	now, list := time.Now(), make([]EndpointStatus, 0, u.Len())
	first := 0
	for spec, m := range u.set.Endpoints() {
		s := m.Status(now)
		if len(list) == 0 {
			first = spec.Tier
		}
		e := EndpointStatus{
			Address: m.ID, State: s.State.String(), Backup: spec.Tier > first, Outstanding: s.Outstanding,
			Failures: s.Failures, Idle: m.Data.idleConns(), Until: s.Until, Check: m.Data.checked.Load(),
		}
		if m.Data.gate != nil {
			e.Refused = m.Data.gate.Hopeless()
		}
		list = append(list, e)
	}
	return list
}
