package service

import (
	"crypto/tls"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/breaker"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// upstreamChanged records what happened to an upstream apart from exchanges.
func (s *service) upstreamChanged(e upstream.Event) {
	switch e.Kind {
	case upstream.EndpointEjected:
		s.logger.Warn("endpoint put aside", "event", logging.EndpointEjected, "upstream", e.Upstream, "endpoint", e.Endpoint, "for", e.For.Round(time.Millisecond))
	case upstream.EndpointUnhealthy:
		s.logger.Warn("endpoint is unhealthy", "event", logging.EndpointUnhealthy, "upstream", e.Upstream, "endpoint", e.Endpoint, "err", e.Err)
	case upstream.EndpointHealthy:
		s.logger.Info("endpoint is healthy", "event", logging.EndpointHealthy, "upstream", e.Upstream, "endpoint", e.Endpoint)
	case upstream.BreakerChanged:
		s.breakerChanged(e)
	case upstream.ResolveFailed:
		s.logger.Warn("names not resolved", "event", logging.ResolveFailed, "upstream", e.Upstream, "err", e.Err)
	case upstream.ResolveRecovered:
		s.logger.Info("names resolved again", "event", logging.ResolveRecovered, "upstream", e.Upstream)
	case upstream.ConnOpened:
		s.logger.Debug("connected to upstream", "upstream", e.Upstream, "endpoint", e.Endpoint, "tls", tls.VersionName(e.TLS),
			"resumed", e.Resumed, "took", e.For.Round(time.Microsecond))
	case upstream.ConnClosed:
		s.logger.Debug("connection to upstream closed", "upstream", e.Upstream, "endpoint", e.Endpoint, "why", e.Why.String(),
			"age", e.For.Round(time.Millisecond))
	}
}

func (s *service) breakerChanged(e upstream.Event) {
	switch c := e.Change; c.To {
	case breaker.Open:
		s.logger.Warn("circuit breaker is open", "event", logging.BreakerOpened, "upstream", e.Upstream, "failures", c.Failures, "requests", c.Requests)
	case breaker.HalfOpen:
		s.logger.Info("circuit breaker is half-open", "event", logging.BreakerHalfOpened, "upstream", e.Upstream)
	case breaker.Closed:
		s.logger.Info("circuit breaker is closed again", "event", logging.BreakerClosed, "upstream", e.Upstream)
	}
}

// storeChanged records that the store of a shared rate limit is away, or back.
func (s *service) storeChanged(err error) {
	if err != nil {
		s.logger.Warn("store of the shared rate limit is away", "event", logging.StoreAway, "err", err)
		return
	}
	s.logger.Info("store of the shared rate limit is back", "event", logging.StoreBack)
}
