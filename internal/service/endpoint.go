package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// EndpointStatus is one address of an upstream.
type EndpointStatus struct {
	Address         string       `json:"address"` // with the name that it was found under: name@ip:port
	State           string       `json:"state"`   // in, ejected, unhealthy, drained
	Backup          bool         `json:"backup"`
	Outstanding     int          `json:"outstanding"` // requests under way
	IdleConnections int          `json:"idle_connections"`
	Failures        int          `json:"failures"`               // in a row
	Until           *time.Time   `json:"until,omitempty"`        // when an ejection ends
	RefusedAtOnce   uint64       `json:"refused_at_once"`        // for want of hope that max_active would let them in
	HealthCheck     *CheckStatus `json:"health_check,omitempty"` // none: not checked yet
}

// CheckStatus is the result of the last health check.
type CheckStatus struct {
	At    time.Time `json:"at"`
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty"`
}

func endpointsOf(u *upstream.Upstream) []EndpointStatus {
	list := []EndpointStatus{}
	for _, e := range u.Endpoints() {
		st := EndpointStatus{
			Address: e.Address, State: e.State, Backup: e.Backup, Outstanding: e.Outstanding, IdleConnections: e.Idle,
			Failures: e.Failures, RefusedAtOnce: e.Refused,
		}
		if !e.Until.IsZero() {
			st.Until = &e.Until
		}
		if e.Check != nil {
			st.HealthCheck = &CheckStatus{At: e.Check.At, OK: e.Check.Err == nil}
			if e.Check.Err != nil {
				st.HealthCheck.Error = firstLine(e.Check.Err)
			}
		}
		list = append(list, st)
	}
	return list
}

// changeEndpoint puts endpoints aside, or takes that back, for all exchanges
// that begin from now on. Those under way go on.
func (s *service) changeEndpoint(ctx context.Context, change admin.EndpointChange) (res admin.EndpointResult) {
	err := s.reloader.Between(ctx, func() { res = s.setEndpoint(change) })
	if err != nil {
		res = admin.EndpointResult{Error: firstLine(err)}
	}
	return res
}

func (s *service) setEndpoint(wish admin.EndpointChange) (res admin.EndpointResult) {
	u, err := s.upstreamNamed(wish.Upstream)
	if err != nil {
		return admin.EndpointResult{Error: err.Error()}
	}
	drained := u.Drained()
	for _, address := range u.Match(wish.Address) {
		if slices.Contains(drained, address) != wish.Resume {
			res.Unchanged = append(res.Unchanged, address)
			continue
		}
		// Nobody else drains or resumes; an endpoint may have left in this moment.
		message, event, change := "endpoint drained", logging.EndpointDrained, u.Drain
		if wish.Resume {
			message, event, change = "endpoint resumed", logging.EndpointResumed, func(address string) bool { return u.Resume(time.Now(), address) }
		}
		if change(address) {
			res.Changed = append(res.Changed, address)
			s.logger.Info(message, "event", event, "upstream", u.Name(), "endpoint", address, "by", wish.By)
		}
	}
	if len(res.Changed)+len(res.Unchanged) == 0 {
		res.Error = noEndpoint(u, wish.Address)
		return res
	}
	res.OK = true
	if h := u.Health(); h.In == 0 && !wish.Resume {
		w := fmt.Sprintf("no endpoint of upstream %q is in now: requests go to those that are out rather than nowhere, drained ones last", u.Name())
		res.Warnings = append(res.Warnings, w)
		s.logger.Warn("upstream has no endpoint that is in", "event", logging.NoEndpointIn, "upstream", u.Name())
	}
	return res
}

func (s *service) upstreamNamed(name string) (*upstream.Upstream, error) {
	cur := s.current.Load()
	if cur == nil {
		return nil, errors.New("the service is starting")
	}
	var names []string
	for _, u := range cur.snap.Upstreams() {
		if u.Name() == name {
			return u, nil
		}
		names = append(names, u.Name())
	}
	return nil, fmt.Errorf("there is no upstream %q; there are: %s", name, strings.Join(names, ", "))
}

// noEndpoint says what there is instead.
func noEndpoint(u *upstream.Upstream, address string) string {
	var known []string
	for _, e := range u.Endpoints() {
		known = append(known, e.Address)
	}
	if len(known) == 0 {
		return fmt.Sprintf("upstream %q has no endpoint at the moment, because its names lead to none", u.Name())
	}
	return fmt.Sprintf("upstream %q has no endpoint %q; there are: %s", u.Name(), address, strings.Join(known, ", "))
}
