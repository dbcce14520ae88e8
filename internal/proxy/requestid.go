package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
)

// requestIDs names exchanges: the same beginning for all of a process, then a number. A name is made only for an exchange
// that somebody will ask about.
type requestIDs struct {
	process [6]byte
	last    atomic.Uint64
}

func newRequestIDs() *requestIDs {
	ids := new(requestIDs)
	_, _ = rand.Read(ids.process[:]) // never fails
	return ids
}

// next returns a name that this process has not given before and others hardly have.
func (ids *requestIDs) next() string {
	var b [14]byte
	copy(b[:], ids.process[:])
	binary.BigEndian.PutUint64(b[6:], ids.last.Add(1))
	return hex.EncodeToString(b[:6]) + "-" + hex.EncodeToString(b[8:])
}
