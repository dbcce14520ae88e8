package conn

import "sync"

// Sizes of buffers.
const (
	// SmallBuffer holds one TLS record of any size, with its header, or a plain head and body as they usually are.
	SmallBuffer = 17 << 10
	// LargeBuffer holds eight full records, or what they decrypt to.
	LargeBuffer = 144 << 10
)

// Buffer is memory that goes back to where it came from.
type Buffer struct{ B []byte }

// Buffers lends memory, so that a connection has some only while bytes are on their way.
type Buffers struct {
	small, large sync.Pool
}

// NewBuffers returns Buffers that hold nothing yet.
func NewBuffers() *Buffers {
	return &Buffers{
		small: sync.Pool{New: func() any { return &Buffer{make([]byte, SmallBuffer)} }},
		large: sync.Pool{New: func() any { return &Buffer{make([]byte, LargeBuffer)} }},
	}
}

// Small lends SmallBuffer bytes. What is in them is undefined.
func (p *Buffers) Small() *Buffer { return p.small.Get().(*Buffer) }

// Large lends LargeBuffer bytes. What is in them is undefined.
func (p *Buffers) Large() *Buffer { return p.large.Get().(*Buffer) }

// Put takes b back, with whatever capacity it has now; nil is nothing. Nobody may use it any more.
func (p *Buffers) Put(b *Buffer) {
	if b == nil {
		return
	}
	b.B = b.B[:cap(b.B)]
	switch {
	case cap(b.B) >= LargeBuffer:
		p.large.Put(b)
	default:
		p.small.Put(b)
	}
}
