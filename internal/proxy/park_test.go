package proxy

import (
	"context"
	"strings"
	"testing"
)

// parked returns a caller whose session has been served once and is parked.
func (k *kit) parked() *caller {
	k.Helper()
	c := k.dial()
	c.send(get("/")).answer().ok(k)
	k.any("the session is parked", in(phaseParked))
	return c
}

// Who has made one request may never make another. Who comes back soon is not parked between his requests.
func TestCallersArePaidForWhenTheyShowHaste(t *testing.T) {
	k := start(t, setup{})
	c := k.dial()
	k.any("the session has begun", func(x *session) bool { return phaseOf(x.word.Load()).fresh() })
	k.server.mu.Lock() // the sweeper, which parks who was in haste and is not any more, has to wait
	defer k.server.mu.Unlock()
	c.send(get("/")).answer().ok(k)
	k.until("the session is parked", func() bool { return k.server.lot.Len() == 1 })
	c.send(get("/")).answer().ok(k)
	k.until("its goroutine waits for the next request", func() bool {
		for _, stack := range ours() {
			if strings.Contains(stack, "conn.(*Socket).Run") && strings.Contains(stack, "IO wait") {
				return true
			}
		}
		return false
	})
	if n := k.server.lot.Len(); n != 0 {
		t.Errorf("Len() of the lot = %d for a caller in haste", n)
	}
}

// Who connects is expected to ask for something at once, and is spared by a drain for that reason, but not for long.
func TestCallersWhoAskForNothing(t *testing.T) {
	k := start(t, setup{})
	c := k.dial()
	if !raceEnabled { // or a look at who has sent nothing is a wait
		k.any("the session has no goroutine", in(phaseFreshParked))
		if n := k.server.lot.Len(); n != 1 {
			t.Errorf("Len() of the lot = %d with one parked", n)
		}
	}
	k.any("the session is like others that are idle", in(phaseParked))
	c.send(get("/")).answer().ok(k)
}

// A generation may have thousands of routes, and callers idle for longer than it serves.
func TestParkedCallersHoldNoGeneration(t *testing.T) {
	k := start(t, setup{})
	c := k.parked()
	k.any("the session holds no generation", func(x *session) bool {
		return phaseOf(x.word.Load()) == phaseParked && x.snap == nil && x.policy == nil
	})
	k.reload("[[route]]\nupstream = \"default\"\nmax_request_body = \"1MiB\"\n")
	c.send(get("/")).answer().ok(k)
}

func TestParkedCallersAreServed(t *testing.T) {
	k := start(t, setup{})
	c := k.parked()
	if n := k.server.Stats().ActiveConnections; n != 1 {
		t.Errorf("ActiveConnections = %d with one parked", n)
	}
	c.send(post("/upload", "hello")).answer().ok(k)
	c.send(get("/") + get("/")).answer().ok(k)
	c.answer().ok(k)
}

func TestParkedCallersThatLeaveAreForgotten(t *testing.T) {
	k := start(t, setup{})
	c := k.parked()
	_ = c.Close()
	k.until("the session has ended", func() bool { return k.server.Stats().ActiveConnections == 0 })
}

func TestParkedCallersMakeRoom(t *testing.T) {
	k := start(t, setup{config: "[limits]\nmax_connections = 1\n"})
	first := k.parked()
	k.dial().send(get("/")).answer().ok(k)
	first.ended()
}

func TestParkedCallersTimeOut(t *testing.T) {
	k := start(t, setup{config: "[limits]\nidle_timeout = \"2s\"\n"})
	k.parked().ended()
}

func TestDrainEndsParkedCallers(t *testing.T) {
	k := start(t, setup{})
	c := k.parked()
	if err := k.drain(patience); err != nil {
		t.Errorf("Drain() = %v", err)
	}
	c.ended()
}

// A restart: what the first server keeps, the second one adopts, and the caller notices nothing.
func TestIdleConnectionsOutliveTheirServer(t *testing.T) {
	o, arrived, release := holding()
	k := start(t, setup{upstream: o})
	idle, busy := k.parked(), k.dial().send(get("/held"))
	take(k, "the request", arrived)
	fresh := k.dial()
	k.until("all are there", func() bool { return k.server.Stats().ActiveConnections == 3 })

	k.stopServing()
	k.drained = true
	type result struct {
		kept map[string]int
		err  error
	}
	second := NewServer(k.server.o)
	ended := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		kept, err := k.server.Drain(ctx, 10)
		r := result{make(map[string]int), err}
		for listener, conns := range kept {
			for _, c := range conns {
				r.kept[listener]++
				if !second.Adopt(ctx, listener, c) {
					t.Errorf("a connection of %q is not adopted", listener)
				}
			}
		}
		ended <- r
	}()
	k.any("the drain has begun", func(*session) bool { return k.server.draining.Load() })
	// As long as an exchange lasts, those who are idle are served.
	if a := idle.send(get("/")).answer().ok(k); a.Close {
		t.Error("a connection that is to be kept was told to close")
	}
	close(release)
	if a := busy.answer().ok(k); a.Close {
		t.Error("a connection that is to be kept was told to close")
	}
	r := take(k, "the end of the drain", ended)
	if r.err != nil || r.kept["http"] != 3 {
		t.Errorf("Drain() = %v kept, %v; want 3 of http", r.kept, r.err)
	}
	for _, c := range []*caller{idle, busy, fresh} {
		if a := c.send(get("/")).answer().ok(k); a.Close {
			t.Error("an adopted connection was told to close")
		}
	}
	if _, err := second.Drain(t.Context(), 0); err != nil {
		t.Errorf("second Drain() = %v", err)
	}
	idle.ended()
}

func TestNoMoreConnectionsAreKeptThanThereIsRoomFor(t *testing.T) {
	k := start(t, setup{})
	first, second := k.dial(), k.dial()
	first.send(get("/")).answer().ok(k)
	second.send(get("/")).answer().ok(k)
	k.stopServing()
	k.drained = true
	kept, err := k.server.Drain(t.Context(), 1)
	if err != nil || len(kept["http"]) != 1 {
		t.Fatalf("Drain() = %v, %v; want one", kept, err)
	}
	_ = kept["http"][0].Close()
	first.ended()
	second.ended()
}

func TestNobodyAdoptsForAListenerThatIsNotThere(t *testing.T) {
	k := start(t, setup{})
	k.dial().send(get("/")).answer().ok(k)
	k.stopServing()
	k.drained = true
	kept, err := k.server.Drain(t.Context(), 1)
	if err != nil || len(kept["http"]) != 1 {
		t.Fatalf("Drain() = %v, %v; want one", kept, err)
	}
	c := kept["http"][0]
	if NewServer(k.server.o).Adopt(t.Context(), "elsewhere", c) {
		t.Error("a connection of a listener that is not there was adopted")
	}
	_ = c.Close()
}
