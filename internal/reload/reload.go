// Package reload replaces what is running by what the configuration says now,
// whole or not at all.
package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
)

// Part is something beside the snapshot that follows the configuration: the
// listeners, the operators' surface, the log.
type Part interface {
	// Prepare does everything that can fail and nothing that anybody notices.
	// Exactly one of the change's methods is called afterwards.
	Prepare(ctx context.Context, cfg *config.Config) (Change, error)
}

// Change is what a Part prepared.
type Change interface {
	Commit() // cannot fail; called once the new snapshot is published
	Abort()  // as if Prepare had never been called
}

// Announcer tells the service manager that a reload is under way. Every
// Reloading is followed by one Ready, whatever became of the reload.
type Announcer interface {
	Reloading()
	Ready(Outcome)
}

// Options is what a Reloader works with. All of it is required.
type Options struct {
	Load  func() (*config.Config, error)
	Build func(ctx context.Context, cfg *config.Config, prev *snapshot.Snapshot) (*snapshot.Snapshot, error)
	Store *snapshot.Store
	Parts []Part // prepared and committed in this order

	// Published is called right after next was published, before the parts
	// commit; old is nil at the start.
	Published func(cfg *config.Config, old, next *snapshot.Snapshot)

	Announcer Announcer
}

// Outcome is what became of one reload.
type Outcome struct {
	Generation uint64    `json:"generation"` // the one that serves now
	At         time.Time `json:"at"`
	Seconds    float64   `json:"seconds"`
	Changes    []string  `json:"changes,omitempty"` // none: the files say what they said before
	Error      string    `json:"error,omitempty"`   // why nothing changed
}

// OK tells whether the new generation serves.
func (o Outcome) OK() bool { return o.Error == "" }

// Reloader carries out reloads, one at a time.
type Reloader struct {
	o    Options
	turn chan struct{} // holds one token: whoever has it reloads

	// Owned by whoever has the turn.
	cfg    *config.Config
	behind <-chan prepared // what a reload that was given up still prepares; nil: nothing
}

// New returns a Reloader that has not loaded anything yet.
func New(o Options) *Reloader {
	r := &Reloader{o: o, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// Start builds and publishes the first generation. Nobody is told: the service
// is not ready yet.
func (r *Reloader) Start(ctx context.Context, cfg *config.Config) (Outcome, error) {
	if err := r.take(ctx); err != nil {
		return Outcome{}, err
	}
	defer r.give()
	return r.apply(ctx, func() (*config.Config, error) { return cfg, nil })
}

// Reload loads the configuration again and publishes a generation made from
// it. When it returns, that generation serves, or err says why the old one
// still does; what the old one leaves behind goes away by itself. A second
// caller waits for the first.
func (r *Reloader) Reload(ctx context.Context) (Outcome, error) {
	if err := r.take(ctx); err != nil {
		return Outcome{}, err
	}
	defer r.give()
	r.o.Announcer.Reloading()
	out, err := r.apply(ctx, r.o.Load)
	r.o.Announcer.Ready(out)
	return out, err
}

// Between runs f while no reload is under way, so that what f changes is not
// half taken over by the next generation. f returns soon: reloads wait for it.
func (r *Reloader) Between(ctx context.Context, f func()) error {
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.give()
	f()
	return nil
}

func (r *Reloader) take(ctx context.Context) error {
	select {
	case <-r.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the reload before this one: %w", context.Cause(ctx))
	}
}

func (r *Reloader) give() { r.turn <- struct{}{} }

func (r *Reloader) apply(ctx context.Context, load func() (*config.Config, error)) (Outcome, error) {
	begin := time.Now()
	changes, err := r.swap(ctx, load)
	out := Outcome{At: begin, Seconds: time.Since(begin).Seconds(), Changes: changes}
	if cur := r.o.Store.Current(); cur != nil {
		out.Generation = cur.Generation
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out, err
}

// maxPrepare bounds the time for reading files and building a generation. An open on a network file system that is away may block for ever.
const maxPrepare = 45 * time.Second

// prepared is a generation that could be put into service.
type prepared struct {
	cfg     *config.Config
	changes []Change
	next    *snapshot.Snapshot
	err     error
}

// swap does the work in the order that keeps every failure before the first
// visible effect.
func (r *Reloader) swap(ctx context.Context, load func() (*config.Config, error)) (changes []string, err error) {
	prev := r.o.Store.Current()
	p, err := r.await(ctx, load, prev)
	if err != nil {
		return nil, err
	}
	if prev != nil {
		changes = diff(r.cfg, p.cfg, prev, p.next)
	}
	r.o.Store.Publish(p.next)
	r.o.Published(p.cfg, prev, p.next)
	for _, change := range p.changes {
		change.Commit()
	}
	r.cfg = p.cfg
	return changes, nil
}

// await prepares a generation, and gives up when ctx is done or it takes too long. What goes on by itself then is undone when it ends; until
// then there is no other reload.
func (r *Reloader) await(ctx context.Context, load func() (*config.Config, error), prev *snapshot.Snapshot) (prepared, error) {
	if r.behind != nil {
		select {
		case late := <-r.behind:
			r.behind = nil
			late.undo(prev)
		default:
			return prepared{}, errBehind
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxPrepare, errSlow)
	defer cancel()
	done := make(chan prepared, 1)
	go func() { done <- r.prepare(ctx, load, prev) }()
	select {
	case p := <-done:
		return p, p.err
	case <-ctx.Done():
	}
	select {
	case p := <-done: // it has noticed, too
		if p.err == nil {
			p.undo(prev)
			p.err = context.Cause(ctx)
		}
		return p, p.err
	case <-time.After(noticeWithin):
		r.behind = done
		return prepared{}, fmt.Errorf("read the configuration and what it names: %w", context.Cause(ctx))
	}
}

// noticeWithin is how long what is being prepared has to notice that it is not wanted any more.
const noticeWithin = 100 * time.Millisecond

var (
	errSlow   = fmt.Errorf("it took longer than %v; is a file on a network file system that is away?", maxPrepare)
	errBehind = errors.New("the reload before this one was given up, but still waits for a file; is it on a network file system that is away?")
)

// prepare does everything that can fail, and nothing that has a visible effect.
func (r *Reloader) prepare(ctx context.Context, load func() (*config.Config, error), prev *snapshot.Snapshot) (p prepared) {
	if p.cfg, p.err = load(); p.err != nil {
		return p
	}
	for _, part := range r.o.Parts {
		change, err := part.Prepare(ctx, p.cfg)
		if err != nil {
			p.undo(prev)
			return prepared{err: err}
		}
		p.changes = append(p.changes, change)
	}
	if p.next, p.err = r.o.Build(ctx, p.cfg, prev); p.err != nil {
		p.undo(prev)
	}
	return p
}

// undo leaves everything as if p had never been prepared.
func (p *prepared) undo(prev *snapshot.Snapshot) {
	for _, change := range slices.Backward(p.changes) {
		change.Abort()
	}
	p.changes = nil
	if p.next != nil {
		p.next.Retire(prev)
	}
}
