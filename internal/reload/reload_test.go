package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// world is what a Reloader acts on. It writes down in what order.
type world struct {
	mu       sync.Mutex
	log      []string
	store    snapshot.Store
	loadErr  error
	prepErr  error // of the second part
	buildErr error
	slow     time.Duration // of loading
	last     Outcome
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) Reloading()      { w.note("reloading") }
func (w *world) Ready(o Outcome) { w.note("ready"); w.last = o }

type part struct {
	w    *world
	name string
	err  *error
}

func (p part) Prepare(context.Context, *config.Config) (Change, error) {
	if *p.err != nil {
		return nil, *p.err
	}
	p.w.note("prepare %s", p.name)
	return p, nil
}

func (p part) Commit() { p.w.note("commit %s", p.name) }
func (p part) Abort()  { p.w.note("abort %s", p.name) }

func (w *world) reloader() *Reloader {
	var none error
	return New(Options{
		Load: func() (*config.Config, error) {
			time.Sleep(w.slow)
			w.note("load")
			return config.Default(), w.loadErr
		},
		Build: func(_ context.Context, _ *config.Config, prev *snapshot.Snapshot) (*snapshot.Snapshot, error) {
			if w.buildErr != nil {
				return nil, w.buildErr
			}
			next := &snapshot.Snapshot{Generation: 1}
			if prev != nil {
				next.Generation = prev.Generation + 1
			}
			w.note("build %d", next.Generation)
			return next, nil
		},
		Store: &w.store,
		Parts: []Part{part{w, "sockets", &none}, part{w, "log", &w.prepErr}},
		Published: func(_ *config.Config, _, next *snapshot.Snapshot) {
			w.note("published %d", next.Generation)
		},
		Announcer: w,
	})
}

func (w *world) started(t *testing.T) *Reloader {
	t.Helper()
	r := w.reloader()
	if _, err := r.Start(t.Context(), config.Default()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	w.log = nil
	return r
}

func TestStartPublishesTheFirstGenerationAndTellsNobody(t *testing.T) {
	w := new(world)
	out, err := w.reloader().Start(t.Context(), config.Default())
	if err != nil || out.Generation != 1 {
		t.Fatalf("Start() = generation %d, %v; want 1", out.Generation, err)
	}
	want := []string{"prepare sockets", "prepare log", "build 1", "published 1", "commit sockets", "commit log"}
	if !slices.Equal(w.log, want) {
		t.Errorf("happened %q, want %q", w.log, want)
	}
}

func TestReloadPublishesBetweenItsTwoAnnouncements(t *testing.T) {
	w := new(world)
	out, err := w.started(t).Reload(t.Context())
	if err != nil || out.Generation != 2 || !out.OK() {
		t.Fatalf("Reload() = %+v, %v; want generation 2", out, err)
	}
	want := []string{"reloading", "load", "prepare sockets", "prepare log", "build 2", "published 2", "commit sockets", "commit log", "ready"}
	if !slices.Equal(w.log, want) {
		t.Errorf("happened %q, want %q", w.log, want)
	}
}

func TestReloadThatFailsChangesNothing(t *testing.T) {
	refusal := errors.New("config.toml:3:1: limits.max_connections: is no number")
	for _, tt := range []struct {
		name string
		fail func(*world)
		want []string
	}{
		{"while loading", func(w *world) { w.loadErr = refusal }, []string{"reloading", "load", "ready"}},
		{"while preparing", func(w *world) { w.prepErr = refusal }, []string{"reloading", "load", "prepare sockets", "abort sockets", "ready"}},
		{"while building", func(w *world) { w.buildErr = refusal },
			[]string{"reloading", "load", "prepare sockets", "prepare log", "abort log", "abort sockets", "ready"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := new(world)
			r := w.started(t)
			before := w.store.Current()
			tt.fail(w)
			out, err := r.Reload(t.Context())
			if !errors.Is(err, refusal) || out.OK() || out.Error != refusal.Error() {
				t.Fatalf("Reload() = %+v, %v; want %v", out, err, refusal)
			}
			if w.store.Current() != before || out.Generation != 1 || w.last.Generation != 1 {
				t.Errorf("generation %d serves after a refused reload, want 1", out.Generation)
			}
			if !slices.Equal(w.log, tt.want) {
				t.Errorf("happened %q, want %q", w.log, tt.want)
			}
		})
	}
}

func TestReloadsWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: time.Second}
		r := w.started(t)
		done := make(chan struct{})
		for range 2 {
			go func() {
				r.Reload(t.Context())
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		if got, want := strings.Join(w.log, " "), "reloading load prepare sockets"; strings.Count(got, "reloading") != 2 || !strings.HasPrefix(got, want) ||
			strings.Index(got, "ready") > strings.LastIndex(got, "reloading") {
			t.Errorf("two reloads mixed: %s", got)
		}
	})
}

func TestReloadGivesUpWaitingWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: maxPrepare / 2}
		r := w.started(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Reload(t.Context())
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Reload(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reload behind another = %v, want deadline exceeded", err)
		}
		<-done
	})
}

// Opening a file on a network file system that is away may block for ever. Neither a stop nor later reloads wait for it.
func TestAReloadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: time.Hour}
		r := w.started(t)
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		begin := time.Now()
		if out, err := r.Reload(ctx); !errors.Is(err, context.Canceled) || out.OK() || time.Since(begin) > 2*time.Second {
			t.Errorf("Reload = %+v, %v after %v; want that it was given up", out, err, time.Since(begin))
		}
		begin = time.Now()
		if _, err := r.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "the reload before this one") || time.Since(begin) > 0 {
			t.Errorf("Reload behind it = %v after %v; want that it fails at once", err, time.Since(begin))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		w.slow = 0
		if got := strings.Join(w.log, " "); strings.Contains(got, "published") || strings.Contains(got, "commit") {
			t.Errorf("what was given up came into service: %s", got)
		}
		w.log = nil
		if out, err := r.Reload(t.Context()); err != nil || out.Generation != 2 {
			t.Errorf("Reload once that has ended = %+v, %v", out, err)
		}
		if got := strings.Join(w.log, " "); !strings.HasPrefix(got, "reloading abort log abort sockets load") {
			t.Errorf("what was given up is undone first: %s", got)
		}
	})
	t.Run("for too long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{slow: time.Hour}
			r := w.started(t)
			if _, err := r.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than 45s") {
				t.Errorf("Reload = %v", err)
			}
			time.Sleep(time.Hour)
		})
	})
}

func TestChangesNameWhatIsDifferent(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*config.Config)
		want []string
	}{
		{"nothing", func(*config.Config) {}, nil},
		{"a value", func(c *config.Config) { c.Log.Level = "debug" }, []string{`log.level: "info" is now "debug"`}},
		{"a duration", func(c *config.Config) { c.Limits.QueueTimeout = config.Duration{Duration: 2 * time.Second} },
			[]string{`limits.queue_timeout: "1s" is now "2s"`}},
		{"a listener more", func(c *config.Config) { c.Listener["second"] = &config.Listener{Address: []string{"127.0.0.1:1"}} },
			[]string{"listener.second added"}},
		{"an upstream less", func(c *config.Config) { delete(c.Upstream, "default") }, []string{"upstream.default removed"}},
		{"a route more", func(c *config.Config) { c.Route = append(c.Route, config.Route{PathPrefix: "/bank"}) }, []string{"route[2] added"}},
		{"the rate of all", func(c *config.Config) { c.RateLimit.RequestsPerSecond = 50 }, []string{"rate_limit.requests_per_second: 100 is now 50"}},
		{"a new user", func(c *config.Config) { c.Admin.Users = map[string]string{"ops": "$2a$12$secret"} }, []string{"admin.users.ops added"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next := config.Default()
			tt.edit(next)
			if got := changes(settings(config.Default(), next)); !slices.Equal(got, tt.want) {
				t.Errorf("changes = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestChangesShowNoSecret(t *testing.T) {
	with := func(hash string) *config.Config {
		cfg := config.Default()
		cfg.Admin.Users = map[string]string{"ops": hash}
		cfg.Route[0].RequestHeaders.Set = map[string]string{"Authorization": hash}
		return cfg
	}
	lines := changes(settings(with("first secret"), with("second secret")))
	if len(lines) != 2 {
		t.Errorf("changes = %q, want two lines", lines)
	}
	if all := strings.Join(lines, "\n"); strings.Contains(all, "secret") {
		t.Errorf("changes show a secret: %s", all)
	}
}
