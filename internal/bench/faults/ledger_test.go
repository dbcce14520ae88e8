//go:build linux

package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"sync"
)

// idField names each request of a load.
const idField = "X-Request"

// answerTo is the body of the answer to a request.
func answerTo(id string) string {
	return fmt.Sprintf("%-20s%s\n", id, strings.Repeat(".", 480))
}

// ledger counts what the endpoints of an upstream are asked.
type ledger struct {
	mu    sync.Mutex // guards what follows
	times map[string]int
	now   int // requests whose answer delaysHead holds back
	most  int // of these at a time
}

func newLedger() *ledger { return &ledger{times: make(map[string]int)} }

// forget begins anew.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.times)
}

func (l *ledger) arrived(id string) {
	if id == "" {
		return // from a caller who behaves in no way at all
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[id]++
}

// arrivedUnread counts the request that waits in r, and leaves it there.
func (l *ledger) arrivedUnread(r *bufio.Reader) {
	waiting, _ := r.Peek(r.Buffered())
	_, rest, found := bytes.Cut(waiting, []byte(idField+": "))
	id, _, whole := bytes.Cut(rest, []byte("\r\n"))
	if found && whole {
		l.arrived(string(id))
	}
}

func (l *ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now++
	l.most = max(l.most, l.now)
}

func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now--
}

// sum returns how many requests arrived, how many of them arrived before already, and the ids of the latter that are of
// one of methods.
func (l *ledger) sum(methods ...string) (arrived, again int, ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.times {
		arrived += n
		again += n - 1
		for _, method := range methods {
			if n > 1 && strings.HasPrefix(id, method+"-") {
				ids = append(ids, id)
			}
		}
	}
	return arrived, again, ids
}

func (l *ledger) busiest() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.most
}
