package admin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// hashCost takes about a quarter of a second of one core.
	hashCost = 12

	// maxHashCost bounds what one login may cost; each step doubles it.
	maxHashCost = 16

	// maxPasswordBytes is bcrypt's own: it would ignore the rest.
	maxPasswordBytes = 72
)

// HashPassword returns the bcrypt hash of a password, as [admin] users wants it.
func HashPassword(password []byte) (string, error) {
	switch {
	case len(password) == 0:
		return "", errors.New("hash the password: it is empty")
	case len(password) > maxPasswordBytes:
		return "", fmt.Errorf("hash the password: it has %d bytes; bcrypt takes %d at most and ignores the rest", len(password), maxPasswordBytes)
	}
	hash, err := bcrypt.GenerateFromPassword(password, hashCost)
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return string(hash), nil
}

// checkHash never quotes the hash: it is worth guessing at.
func checkHash(hash string) error {
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil {
		return errors.New("the value is no bcrypt hash; `mtls-proxy hash-password` makes one")
	}
	if cost > maxHashCost {
		return fmt.Errorf("the hash has cost %d; above %d a login takes many seconds", cost, maxHashCost)
	}
	return nil
}

const (
	grantedFor  = 5 * time.Minute
	deniedFor   = time.Minute
	maxVerdicts = 1024 // of each kind

	// A password that was wrong keeps its slot for as long again as the check
	// took, times penalty, so that guessing gets a quarter of one core.
	penalty    = 3
	minPenalty = 50 * time.Millisecond
)

// verdict is what is known about a user with a password.
type verdict uint8

const (
	denied verdict = iota
	granted
	busy // nothing: too many are being checked
)

// passwords says who has proved to be one of the users. It remembers its
// verdicts for a while, since a bcrypt hash is made to be slow and Basic
// authentication sends the password with every request.
type passwords struct {
	hashes map[string][]byte
	names  []string // sorted
	key    [32]byte // of the digests below; made anew with every passwords
	gate   *gate

	mu      sync.Mutex
	granted map[[32]byte]time.Time // digest of user and password, until when it counts
	denied  map[[32]byte]time.Time // apart, so that guesses push no user out
}

func newPasswords(users map[string]string, gate *gate) *passwords {
	p := &passwords{
		hashes:  make(map[string][]byte, len(users)),
		names:   slices.Sorted(maps.Keys(users)),
		gate:    gate,
		granted: make(map[[32]byte]time.Time),
		denied:  make(map[[32]byte]time.Time),
	}
	for name, hash := range users {
		p.hashes[name] = []byte(hash)
	}
	_, _ = rand.Read(p.key[:]) // never fails, by its promise
	return p
}

// check takes as long for a user that does not exist as for one that does. Sources, as from tells them apart, are checked by turns.
func (p *passwords) check(ctx context.Context, from, user, password string) verdict {
	if len(p.names) == 0 || len(password) > maxPasswordBytes {
		return denied
	}
	digest := p.digest(user, password)
	if v, known := p.remembered(digest); known {
		return v
	}
	if !p.gate.enter(ctx, from) {
		return busy
	}
	if v, known := p.remembered(digest); known { // by the one before in the queue
		p.gate.leave(0)
		return v
	}
	hash, exists := p.hashes[user]
	if !exists {
		// Always the same one for the same name: which name costs how much
		// then says nothing about whether it is there.
		d := p.digest(user, "")
		hash = p.hashes[p.names[binary.BigEndian.Uint64(d[:8])%uint64(len(p.names))]]
	}
	begin := time.Now()
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	if err == nil && exists {
		p.gate.leave(0)
		p.remember(digest, granted)
		return granted
	}
	p.gate.leave(max(penalty*time.Since(begin), minPenalty))
	p.remember(digest, denied)
	return denied
}

// digest keeps passwords out of memory that lives longer than the request.
func (p *passwords) digest(user, password string) (d [32]byte) {
	mac := hmac.New(sha256.New, p.key[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(user)))
	mac.Write(n[:])
	mac.Write([]byte(user))
	mac.Write([]byte(password))
	mac.Sum(d[:0])
	return d
}

func (p *passwords) remembered(digest [32]byte) (v verdict, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if until, ok := p.granted[digest]; ok && now.Before(until) {
		p.granted[digest] = now.Add(grantedFor) // use extends it, so that a flood does not delay a client in steady use
		return granted, true
	}
	if until, ok := p.denied[digest]; ok && now.Before(until) {
		return denied, true
	}
	return denied, false
}

func (p *passwords) remember(digest [32]byte, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	verdicts, ttl := p.denied, deniedFor
	if v == granted {
		verdicts, ttl = p.granted, grantedFor
	}
	now := time.Now()
	if len(verdicts) >= maxVerdicts {
		maps.DeleteFunc(verdicts, func(_ [32]byte, until time.Time) bool { return !now.Before(until) })
	}
	for d := range verdicts {
		if len(verdicts) < maxVerdicts {
			break
		}
		delete(verdicts, d) // any will do
	}
	verdicts[digest] = now.Add(ttl)
}
