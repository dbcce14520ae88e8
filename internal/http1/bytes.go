package http1

import (
	"encoding/binary"
	"math/bits"
)

// What a byte may be part of.
const (
	alnumByte  = 1 << iota
	tokenByte  // RFC 9110 section 5.6.2
	targetByte // visible ASCII but "#"
	hostByte   // unreserved, RFC 3986 section 2.3
	valueByte  // field values: visible bytes, space, tab and everything from 0x80 on
	digitByte
	hexByte
)

var class = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		if '0' <= c && c <= '9' {
			t[i] |= digitByte
		}
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' {
			t[i] |= hexByte
		}
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			t[i] |= alnumByte | tokenByte | hostByte
		}
		if c > ' ' && c < 0x7f && c != '#' {
			t[i] |= targetByte
		}
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[i] |= valueByte
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] |= tokenByte
	}
	for _, c := range []byte("-._~") {
		t[c] |= hostByte
	}
	return t
}()

// skip returns the index of the first byte of b from i on that is not of the given class, or len(b).
func skip(b []byte, i int, of uint8) int {
	for i < len(b) && class[b[i]]&of != 0 {
		i++
	}
	return i
}

const ones = 0x0101010101010101

// zeros has the high bit set in every byte of x that is zero; above the lowest one there may be false ones.
func zeros(x uint64) uint64 { return (x - ones) &^ x & (0x80 * ones) }

// skipTarget is skip for targetByte, eight bytes at a time.
func skipTarget(b []byte, i int) int {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		if ((x-0x21*ones)&^x|x)&(0x80*ones)|zeros(x^0x7f*ones)|zeros(x^'#'*ones) != 0 {
			break
		}
		i += 8
	}
	return skip(b, i, targetByte)
}

// skipValue is skip for valueByte, eight bytes at a time.
func skipValue(b []byte, i int) int {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		// The lowest bit set marks the first byte below 0x20 or equal to 0x7f; higher ones may be false.
		if hit := (x-0x20*ones)&^x&(0x80*ones) | zeros(x^0x7f*ones); hit != 0 {
			i += bits.TrailingZeros64(hit) / 8
			if b[i] != '\t' {
				return i
			}
			i++
			continue
		}
		i += 8
	}
	return skip(b, i, valueByte)
}

func all(b []byte, of uint8) bool { return skip(b, 0, of) == len(b) }

func isToken(b []byte) bool { return len(b) > 0 && all(b, tokenByte) }

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// cutElement takes the first element off a comma-separated list; elements may be empty. It knows no quoted strings.
func cutElement(list []byte) (element, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// decimal reads one to nineteen digits that fit an int64.
func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if class[c]&digitByte == 0 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n < 1<<63
}
