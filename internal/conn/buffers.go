package conn

import (
	"sync"
	"sync/atomic"
)

// Sizes of buffers.
const (
	// SmallBuffer holds one TLS record of any size, with its header, or a plain head and body as they usually are.
	SmallBuffer = 17 << 10
	// LargeBuffer holds eight full records, or what they decrypt to.
	LargeBuffer = 144 << 10

	// MostLarge is how many large buffers are lent at a time, 9 MiB: two for each of as many bodies as a machine moves
	// quickly at the same moment. The others move in small ones, at some CPU time more.
	MostLarge = 64
)

// Buffer is memory that goes back to where it came from.
type Buffer struct {
	B []byte

	large bool // it counts among those of MostLarge
}

// Buffers lends memory, so that a connection has some only while bytes are on their way.
type Buffers struct {
	small, large sync.Pool
	lent         atomic.Int32 // large ones
}

// NewBuffers returns Buffers that hold nothing yet.
func NewBuffers() *Buffers {
	return &Buffers{
		small: sync.Pool{New: func() any { return &Buffer{B: make([]byte, SmallBuffer)} }},
		large: sync.Pool{New: func() any { return &Buffer{B: make([]byte, LargeBuffer), large: true} }},
	}
}

// Small lends SmallBuffer bytes. What is in them is undefined.
func (p *Buffers) Small() *Buffer { return p.small.Get().(*Buffer) }

// Large lends LargeBuffer bytes, or nothing, nil, when MostLarge are lent. What is in them is undefined.
func (p *Buffers) Large() *Buffer {
	if p.lent.Add(1) > MostLarge {
		p.lent.Add(-1)
		return nil
	}
	return p.large.Get().(*Buffer)
}

// AtLeast lends n bytes or more to somebody who cannot do with less.
func (p *Buffers) AtLeast(n int) *Buffer {
	switch {
	case n <= SmallBuffer:
		return p.Small()
	case n <= LargeBuffer:
		if b := p.Large(); b != nil {
			return b
		}
	}
	return &Buffer{B: make([]byte, n)}
}

// Scarce reports whether there are hardly any large buffers left. Then whoever has one gives it back when it is empty: its
// peer may be one that takes its time.
func (p *Buffers) Scarce() bool { return p.lent.Load() > MostLarge*3/4 }

// Lent is how many large buffers are lent.
func (p *Buffers) Lent() int { return int(p.lent.Load()) }

// Put takes b back, with whatever capacity it has now; nil is nothing. Nobody may use it any more.
func (p *Buffers) Put(b *Buffer) {
	if b == nil {
		return
	}
	if b.large {
		p.lent.Add(-1)
	}
	b.B = b.B[:cap(b.B)]
	switch { // others have grown, or were made, for what does not fit otherwise: they are nobody's any more
	case b.large && len(b.B) == LargeBuffer:
		p.large.Put(b)
	case !b.large && len(b.B) == SmallBuffer:
		p.small.Put(b)
	}
}
