package logging

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func message(level hclog.Level, text string) *record { return &record{level: level, message: text} }

func drain(q *queue) string {
	var got []string
	for {
		batch, _ := q.take(make([]record, 0, 3), true)
		if len(batch) == 0 {
			return strings.Join(got, " ")
		}
		for i := range batch {
			if batch[i].kind == losses {
				got = append(got, fmt.Sprintf("(%d lost)", batch[i].fields[0].number))
			} else {
				got = append(got, batch[i].message)
			}
		}
		q.written(batch, 0)
	}
}

func TestQueueKeepsTheOrder(t *testing.T) {
	q := newQueue(10)
	q.put(message(hclog.Info, "1"))
	q.put(message(hclog.Error, "2"))
	q.put(message(hclog.Debug, "3"))
	q.put(message(hclog.Warn, "4"))
	q.put(message(hclog.Info, "5"))
	if got, want := drain(q), "1 2 3 4 5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAFullQueueDropsTheLowestLevelFirst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		levels []hclog.Level // put in turn as 1, 2, 3 … into a queue of three
		want   string
	}{
		{"debug goes before everything", []hclog.Level{hclog.Info, hclog.Debug, hclog.Warn, hclog.Info}, "(1 lost) 1 3 4"},
		{"the oldest of a level goes first", []hclog.Level{hclog.Info, hclog.Info, hclog.Warn, hclog.Error}, "(1 lost) 2 3 4"},
		{"nothing makes room for its like", []hclog.Level{hclog.Warn, hclog.Warn, hclog.Warn, hclog.Warn}, "(1 lost) 1 2 3"},
		{"nor for what matters less", []hclog.Level{hclog.Error, hclog.Error, hclog.Warn, hclog.Info, hclog.Debug}, "(2 lost) 1 2 3"},
		{"errors outlive all", []hclog.Level{hclog.Info, hclog.Warn, hclog.Debug, hclog.Error, hclog.Error, hclog.Error}, "(3 lost) 4 5 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQueue(3)
			for i, level := range tt.levels {
				q.put(message(level, fmt.Sprint(i+1)))
			}
			if got := drain(q); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			q.put(message(hclog.Info, "again"))
			if got := drain(q); got != "again" {
				t.Errorf("told of the losses twice: %s", got)
			}
		})
	}
}

func TestAccessLinesGoBeforeWhatElseIsInformation(t *testing.T) {
	q := newQueue(1)
	q.put(&record{level: hclog.Info, kind: exchangeFinished, message: "access"})
	q.put(message(hclog.Info, "started"))
	if got, want := drain(q), "(1 lost) started"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQueueGivesMemoryBack(t *testing.T) {
	q := newQueue(10_000)
	for range 3 {
		for i := range 5000 {
			q.put(message(hclog.Info, fmt.Sprint(i)))
		}
		for i := range 5000 {
			batch, _ := q.take(make([]record, 0, 1), true)
			if len(batch) != 1 || batch[0].message != fmt.Sprint(i) {
				t.Fatalf("record %d = %+v", i, batch)
			}
		}
		q.take(make([]record, 0, 1), true)
		if n := cap(q.waiting[infoClass].records); n > 2*batchSize {
			t.Errorf("an empty queue holds room for %d records", n)
		}
	}
	// A queue that is never empty must not grow either.
	for i := range 20_000 {
		q.put(message(hclog.Info, "x"))
		if i > 100 {
			q.take(make([]record, 0, 1), true)
		}
	}
	if n := cap(q.waiting[infoClass].records); n > 1000 {
		t.Errorf("some 100 records take room for %d", n)
	}
}
