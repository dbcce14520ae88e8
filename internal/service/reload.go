package service

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/reload"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// reload carries out one reload and tells everybody how it ended.
func (s *service) reload(ctx context.Context) admin.ReloadResult {
	if s.state.Load() == Draining {
		return admin.ReloadResult{Generation: s.last.get().Generation, Error: "the service is stopping"}
	}
	out, err := s.reloader.Reload(ctx)
	res := admin.ReloadResult{OK: err == nil, Generation: out.Generation}
	if err != nil {
		res.Error = firstLine(err)
		res.Problems = problems(err)
		return res
	}
	res.Warnings = s.warnings()
	return res
}

// problems are the complaints of err, one each.
func problems(err error) []string {
	var found config.Problems
	if !errors.As(err, &found) {
		return strings.Split(err.Error(), "\n")
	}
	list := make([]string, len(found))
	for i, p := range found {
		list[i] = p.String()
	}
	return list
}

// announcer keeps the service manager, the metrics and the log informed of
// reloads. The reloader calls it in order, one reload at a time.
type announcer struct{ s *service }

func (a announcer) Reloading() {
	a.s.report(a.s.notify.Reloading("reloading"))
}

func (a announcer) Ready(out reload.Outcome) {
	s := a.s
	s.last.set(out)
	s.metrics.ReloadResult(out.OK(), out.At)
	if out.OK() {
		s.advise()
		for _, change := range out.Changes {
			s.logger.Debug("setting changed", "generation", out.Generation, "change", change)
		}
		s.logger.Info("generation published", "event", logging.Published, "generation", out.Generation, "changes", len(out.Changes))
	} else {
		s.logger.Error("reload refused", "event", logging.ReloadRefused, "generation", out.Generation, "err", out.Error)
	}
	s.report(s.notify.Ready(s.statusLine()))
}

// advise records what an operator should look at in the generation that has just been put into service.
func (s *service) advise() {
	_, listening := s.listeners.status(nil)
	for _, w := range slices.Concat(s.advice(), listening) {
		s.logger.Warn("something needs attention", "event", logging.NeedsAttention, "what", w)
	}
	s.recordExpiry(time.Now())
}

// published shows the new generation to operators and lets go of the one
// before. What that still has in progress ends by itself.
func (s *service) published(cfg *config.Config, old, next *snapshot.Snapshot) {
	figures := next.Publication()
	s.metrics.Publish(figures)
	s.current.Store(&current{cfg, next, figures})
	told := snapshot.Told{Upstream: &upstream.Told{Event: s.upstreamChanged, Verbose: s.log.Debugging}, Store: s.storeChanged}
	s.behind.Go(func() { next.Run(s.alive, old, told) })
	if old != nil {
		old.Retire(next)
	}
}

// build makes the next generation. What it complains about is in a file.
func (s *service) build(ctx context.Context, cfg *config.Config, prev *snapshot.Snapshot) (*snapshot.Snapshot, error) {
	begin := time.Now()
	next, err := snapshot.Build(ctx, cfg, prev, s.metrics)
	if err != nil {
		return nil, BadConfiguration{located(cfg, err)}
	}
	s.logger.Debug("generation built", "generation", next.Generation, "routes", len(cfg.Route), "upstreams", len(cfg.Upstream),
		"took", time.Since(begin))
	return next, nil
}

// logSettings follows the [log] table.
type logSettings struct {
	log    *logging.Log
	stderr io.Writer
	now    logging.Options // what the generation that serves wants; owned by the reloader
}

// Prepare already changes the log, as the change may fail: there may be no
// journal. Abort changes it back.
func (l *logSettings) Prepare(_ context.Context, cfg *config.Config) (reload.Change, error) {
	next := logOptions(cfg, l.stderr)
	if err := l.log.Reconfigure(next); err != nil {
		return nil, BadConfiguration{config.Problems{{Origin: cfg.Origin("log.format"), Key: "log.format", Fact: err.Error()}}}
	}
	return logChange{l, next}, nil
}

type logChange struct {
	l    *logSettings
	next logging.Options
}

func (c logChange) Commit() { c.l.now = c.next }
func (c logChange) Abort()  { _ = c.l.log.Reconfigure(c.l.now) } // worked before

func logOptions(cfg *config.Config, stderr io.Writer) logging.Options {
	return logging.Options{Level: cfg.Log.Level, Format: cfg.Log.Format, Stderr: stderr}
}
