// Package service is the running program: it wires the parts, starts them in
// order, follows signals and the service manager, and drains at the end.
package service

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
	"github.com/mtls-proxy/mtls-proxy/internal/logging"
	"github.com/mtls-proxy/mtls-proxy/internal/memory"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/proxy"
	"github.com/mtls-proxy/mtls-proxy/internal/reload"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/systemd"
)

const (
	// flushTimeout bounds the last records' way to the journal.
	flushTimeout = 2 * time.Second

	// statusEvery is how often the line of `systemctl status` is looked at; it
	// is sent only when it changed.
	statusEvery = 3 * time.Second

	// expiryWarningDays is how long before its end a certificate is warned of.
	expiryWarningDays = 14

	// extendBy is how much time a drain asks for, every half of it.
	extendBy = 10 * time.Second
)

// Options is what the program knows before any configuration is read.
type Options struct {
	Version string
	Config  string // the file it reads, for people; "" when flags say it all
	Stderr  io.Writer
	Journal bool         // Stderr ends in the journal: why a start fails is a record of its own there
	Ready   func(Status) // called once, when callers are served; nil for nobody

	// Load reads the configuration, at the start and for every reload. sockets are the names of those that the service
	// manager passed.
	Load func(sockets []string) (*config.Config, error)
}

// BadConfiguration is an error that ends when the configuration, or a file it
// names, is put right.
type BadConfiguration struct{ Err error }

func (e BadConfiguration) Error() string { return e.Err.Error() }
func (e BadConfiguration) Unwrap() error { return e.Err }

// Recorded is an error that the journal knows already; stderr would repeat it.
type Recorded struct{ Err error }

func (e Recorded) Error() string { return e.Err.Error() }
func (e Recorded) Unwrap() error { return e.Err }

// service is one run of the program. Its fields are set before the first
// goroutine starts and not changed afterwards.
type service struct {
	o         Options
	started   time.Time
	log       *logging.Log
	logger    hclog.Logger
	metrics   *metrics.Metrics
	notify    *systemd.Notify
	store     *snapshot.Store
	server    *proxy.Server
	listeners *listeners
	admin     *operators
	logging   *logSettings
	reloader  *reload.Reloader

	inherited *systemd.Inherited
	alive     context.Context // of what serves callers, and goes on during a drain; set before the first generation
	behind    sync.WaitGroup  // of what generations do behind exchanges
	state     atomic.Value
	last      lastReload
	expiry    recordedExpiry
	current   atomic.Pointer[current] // nil before the first generation
}

// lastReload is the outcome that /status and the service manager are shown.
type lastReload struct {
	mu      sync.Mutex
	outcome reload.Outcome
}

func (l *lastReload) set(o reload.Outcome) { l.mu.Lock(); l.outcome = o; l.mu.Unlock() }
func (l *lastReload) get() reload.Outcome  { l.mu.Lock(); defer l.mu.Unlock(); return l.outcome }

// Run starts the service, serves until ctx ends, drains and returns nil. It
// returns an error, after the same drain, when something failed that a restart
// may mend; and at once a BadConfiguration when there is nothing to serve.
func Run(ctx context.Context, o Options) error {
	// A hang-up is a wish to reload from the first moment to the last; and
	// whoever reads our stderr may go away without taking us along.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	signal.Ignore(syscall.SIGPIPE)

	notify := systemd.NewNotify()
	err := run(ctx, o, notify, hangups)
	if err == nil {
		return nil
	}
	_ = notify.Status(firstLine(err)) // nobody is left to tell if this fails
	if o.Journal && record(err) == nil {
		return Recorded{err}
	}
	return err
}

// record writes to the journal why the service does not run.
func record(err error) error {
	log, e := logging.New(logging.Options{Format: "journal"})
	if e != nil {
		return e
	}
	log.Logger().Error("start refused", "event", logging.StartRefused, "err", err)
	return log.Close(flushTimeout)
}

func run(ctx context.Context, o Options, notify *systemd.Notify, hangups <-chan os.Signal) (err error) {
	inherited := systemd.Inherit()
	sockets := slices.Sorted(maps.Keys(inherited.Listeners))
	load := func() (*config.Config, error) { return o.Load(sockets) }
	cfg, err := load()
	if err != nil {
		return BadConfiguration{err}
	}
	log, err := logging.New(logOptions(cfg, o.Stderr))
	if err != nil {
		return BadConfiguration{err}
	}
	defer func() { _ = log.Close(flushTimeout) }() // who would hear of it?

	s := &service{
		o:         o,
		started:   time.Now(),
		log:       log,
		logger:    log.Logger(),
		notify:    notify,
		store:     new(snapshot.Store),
		inherited: inherited,
	}
	s.state.Store(Starting)
	s.metrics = metrics.New(metrics.Options{Version: o.Version, Faults: faults(), LogDropped: log.Dropped})
	s.server = proxy.NewServer(proxy.Options{Store: s.store, Metrics: s.metrics, Log: log})
	s.listeners = newListeners(inherited.Listeners, s.server)
	s.admin = &operators{systemd: notify.Enabled(), warn: s.adminWarning, server: admin.New(admin.Options{
		Metrics:  s.metrics.Handler(),
		Status:   func() any { return s.Status() },
		Ready:    s.ready,
		Reload:   s.reload,
		Endpoint: s.changeEndpoint,
		Report:   func(err error) { s.logger.Warn("operators' surface failed", "event", logging.AdminFailed, "err", err) },
	})}
	s.logging = &logSettings{log: log, stderr: o.Stderr, now: logOptions(cfg, o.Stderr)}
	s.reloader = reload.New(reload.Options{
		Load: func() (*config.Config, error) {
			cfg, err := load()
			if err == nil {
				s.logger.Debug("configuration read", "files", strings.Join(cfg.Files, " "))
			}
			return cfg, err
		},
		Build:     s.build,
		Store:     s.store,
		Parts:     []reload.Part{s.listeners, s.admin, s.logging},
		Published: s.published,
		Announcer: announcer{s},
	})
	return s.serve(ctx, cfg, hangups)
}

// serve carries the service from its first generation to the end of the drain.
func (s *service) serve(ctx context.Context, cfg *config.Config, hangups <-chan os.Signal) error {
	for _, err := range s.inherited.Problems {
		s.logger.Warn("inherited socket not used", "event", logging.SocketUnused, "err", err)
	}
	// What serves callers and operators ends after the drain, not with ctx.
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s.alive = alive
	defer func() { end(); s.behind.Wait() }()
	s.listeners.group, s.listeners.alive = errgroup.WithContext(alive)

	out, err := s.reloader.Start(ctx, cfg)
	s.last.set(out)
	s.metrics.ReloadResult(err == nil, out.At)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // asked to stop before there was anything to stop
	case err != nil:
		return err
	}
	s.advise()
	s.adopt(alive)
	var attendants sync.WaitGroup
	attendants.Go(func() {
		if err := s.admin.server.Serve(alive); err != nil {
			s.logger.Error("operators' surface ended", "event", logging.AdminUnavailable, "err", err)
		}
	})
	working, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	workers.Go(func() { s.followHangups(working, hangups) })
	workers.Go(func() { s.pingWatchdog(working) })
	workers.Go(func() { memory.Mind(working) })

	s.state.Store(Serving)
	s.logger.Info("started", "event", logging.Started, "version", s.o.Version, "generation", out.Generation, "config", s.o.Config)
	line := s.statusLine()
	s.report(s.notify.Ready(line))
	attendants.Go(func() { s.tellStatus(alive, line) })
	if s.o.Ready != nil {
		s.o.Ready(s.Status())
	}

	select {
	case <-ctx.Done():
	case <-s.listeners.alive.Done(): // one of them failed
	}
	stop()
	workers.Wait()
	err = s.drain(ctx)
	end()
	attendants.Wait()
	if err != nil {
		s.logger.Error("stopped", "event", logging.Stopped, "err", err)
		return err
	}
	s.logger.Info("stopped", "event", logging.Stopped)
	return nil
}

// drain finishes what is in progress, in the order that loses nothing: say so,
// accept no more while the service manager's sockets stay open, let every
// exchange end, close what is idle. It returns why a listener failed, if one
// did.
func (s *service) drain(ctx context.Context) error {
	s.state.Store(Draining)
	s.report(s.notify.Stopping(s.statusLine()))
	timeout := s.current.Load().cfg.Reload.DrainTimeout.Duration
	s.logger.Info("draining", "event", logging.Draining, "exchanges", s.server.Stats().ActiveExchanges, "timeout", timeout)
	failure := s.listeners.stop()

	// ctx is over; the drain has a deadline of its own. Who interrupts twice
	// does not want to wait.
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	impatient, unsubscribe := signal.NotifyContext(dctx, os.Interrupt)
	defer unsubscribe()
	var extending sync.WaitGroup
	extending.Go(func() { s.extend(dctx) })
	kept, err := s.server.Drain(impatient, s.notify.Room())
	if err != nil {
		s.logger.Warn("drain cut short", "event", logging.DrainExpired, "err", err)
	}
	s.handOver(context.WithoutCancel(ctx), kept)
	cancel()
	extending.Wait()
	s.listeners.close()
	s.store.Current().Retire(nil)
	return failure
}

// extend asks the service manager for time until ctx ends.
func (s *service) extend(ctx context.Context) {
	tick := time.NewTicker(extendBy / 2)
	defer tick.Stop()
	for {
		s.report(s.notify.ExtendTimeout(extendBy))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// followHangups reloads on SIGHUP. Those that arrive during a reload are one.
func (s *service) followHangups(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			s.reload(ctx)
		}
	}
}

// pingWatchdog tells the service manager that we are well, and only after a
// request through one of our own listeners was answered.
func (s *service) pingWatchdog(ctx context.Context) {
	interval, err := systemd.WatchdogInterval()
	s.report(err)
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		pctx, cancel := context.WithTimeout(ctx, interval/2)
		err := s.server.Probe(pctx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.logger.Error("self-probe failed", "event", logging.ProbeFailed, "err", err)
		default:
			s.report(s.notify.Watchdog())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *service) adminWarning(text string) {
	s.logger.Warn("operators' address not available", "event", logging.AdminUnavailable, "err", text)
}

// report logs an error that nothing else depends on.
func (s *service) report(err error) {
	if err != nil {
		s.logger.Warn("service manager not told", "event", logging.ManagerUntold, "err", err)
	}
}

func faults() []metrics.Fault {
	var list []metrics.Fault
	for _, token := range fault.Tokens() {
		list = append(list, metrics.Fault{Token: string(token), Blame: token.Blame().String()})
	}
	return list
}

func firstLine(err error) string {
	text := fmt.Sprint(err)
	for i := range text {
		if text[i] == '\n' {
			return text[:i]
		}
	}
	return text
}
