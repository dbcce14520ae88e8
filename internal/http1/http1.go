// Package http1 reads and writes HTTP/1.x messages: heads, framing and hop-by-hop rules, bytes in and bytes out.
//
// It follows RFC 9110 and 9112 where they leave no choice and their strictest reading where they do: what it
// accepts has one meaning, whoever reads it next.
package http1

// Limits bound a message. A zero member stands for its default.
type Limits struct {
	MaxRequestLine int  // bytes without CRLF; 0: 16 KiB
	MaxHead        int  // bytes from the first to the empty line's CRLF, and of a trailer section likewise; 0: 64 KiB
	AnyHost        bool // a Host that is none is taken, as Request.OddHost
	MaxFields      int  // 0: one for each 32 bytes of MaxHead, and 128 at least
}

// bytesPerField is how many bytes of a head its fields have on average, at least. Shorter ones take more memory than they say.
const bytesPerField = 32

// MaxInterim is how many interim responses (1xx) may come before the final one. A server that reports progress stays far below it.
const MaxInterim = 1000

func (l *Limits) orDefault() (o Limits) {
	if l != nil {
		o = *l
	}
	if o.MaxRequestLine <= 0 {
		o.MaxRequestLine = 16 << 10
	}
	if o.MaxHead <= 0 {
		o.MaxHead = 64 << 10
	}
	if o.MaxFields <= 0 {
		o.MaxFields = max(o.MaxHead/bytesPerField, 128)
	}
	return o
}

// Framing says how the end of a body is told.
type Framing uint8

const (
	NoBody     Framing = iota
	Length             // ContentLength bytes, at least one
	Chunked            // RFC 9112 section 7.1
	UntilClose         // responses only: to the end of the connection
)
