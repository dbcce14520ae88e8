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

// requestID is the name of an exchange: where the process began, and a number.
type requestID [12 + 1 + 12]byte

// next writes a name that this process has not given before and others hardly have.
func (ids *requestIDs) next(id *requestID) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], ids.last.Add(1))
	hex.Encode(id[:12], ids.process[:])
	id[12] = '-'
	hex.Encode(id[13:], n[2:])
}
