package admin

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestTurnsOfTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		if !g.enter(t.Context(), "a") {
			t.Fatal("an empty gate refuses")
		}
		var (
			wg    sync.WaitGroup
			order []string // one is inside at a time
		)
		for _, name := range []string{"a1", "a2", "b1", "a3"} {
			wg.Go(func() {
				if g.enter(t.Context(), name[:1]) {
					order = append(order, name)
					g.leave(0)
				}
			})
			synctest.Wait()
		}
		g.leave(0)
		wg.Wait()
		if want := []string{"b1", "a1", "a3", "a2"}; !slices.Equal(order, want) {
			t.Errorf("they came through as %v, want %v", order, want)
		}
	})
}
