package memory

import (
	"testing"
	"time"
)

func TestMemoryGoesBackInTheFirstCalmAfterARush(t *testing.T) {
	at := time.Unix(1000, 0)
	var allocated uint64
	var m trimmer
	look := func(after time.Duration, more uint64) bool {
		at = at.Add(after)
		allocated += more
		due := m.due(at, allocated)
		if due {
			m.done(at, at.Add(10*time.Millisecond))
		}
		return due
	}
	for _, step := range []struct {
		what  string
		after time.Duration
		more  uint64
		want  bool
	}{
		{"the start goes on", lookEvery, calm, false},
		{"the first calm after it", lookEvery, calm - 1, true},
		{"nothing happens", time.Minute, 0, false},
		{"little happens", time.Minute, calm - 1, false},
		{"a rush", lookEvery, 10 * worth, false},
		{"the calm after that", lookEvery, 0, true},
		{"another rush", 10 * time.Millisecond, worth, false},
		{"a calm too soon after the last time", 100 * time.Millisecond, 0, false},
		{"still calm", share * 10 * time.Millisecond, 0, true},
	} {
		if got := look(step.after, step.more); got != step.want {
			t.Errorf("%s: due = %v, want %v", step.what, got, step.want)
		}
	}
}

func TestCollectionsArePutOffWhileTheHeapIsSmall(t *testing.T) {
	for _, tt := range []struct {
		live uint64
		want int
	}{
		{0, 400}, {3 << 20, 400}, {4 << 20, 200}, {5 << 20, 200}, {6 << 20, 100}, {1 << 30, 100},
	} {
		got := percentOf(tt.live)
		if got != tt.want {
			t.Errorf("with %d bytes live: %d%%, want %d%%", tt.live, got, tt.want)
		}
		if most := max(ground, 2*tt.live); tt.live*uint64(100+got)/100 > most {
			t.Errorf("with %d bytes live, the heap may take more than %d", tt.live, most)
		}
	}
}
