package snapshot

import (
	"context"
	"sync"

	"github.com/mtls-proxy/mtls-proxy/internal/upstream"
)

// Told is told of changes of state that an operator may want to know of, by goroutines that wait for it.
type Told struct {
	Upstream *upstream.Told  // may be nil
	Store    func(err error) // of the shared rate limit: why it is away, nil when it is back; may be nil
}

// Run does what goes on behind exchanges for what s has and prev, which may be nil, has not: names are looked up and
// endpoints checked. What later generations take over stays with this Run. It returns when ctx is done or when everything
// was retired. It is called once for each snapshot that is published.
func (s *Snapshot) Run(ctx context.Context, prev *Snapshot, told Told) {
	var group sync.WaitGroup
	defer group.Wait()
	before := indexOf(prev)
	for _, u := range s.upstreams {
		if before.upstreams[u.Name()] != u {
			group.Go(func() { u.Run(ctx, told.Upstream) })
		}
	}
	for _, b := range s.budgets {
		if b.shared != nil && told.Store != nil && before.budgets[b.id] != b {
			group.Go(func() { b.tell(ctx, told.Store) })
		}
	}
}

func (b *budget) tell(ctx context.Context, told func(error)) {
	for {
		select {
		case err := <-b.changes:
			told(err)
		case <-b.over:
			return
		case <-ctx.Done():
			return
		}
	}
}
