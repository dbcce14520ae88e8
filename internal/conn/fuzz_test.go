package conn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pieces is a net.Conn that delivers bytes in pieces, of the sizes that cuts tells, over and over.
type pieces struct {
	net.Conn
	all, cuts []byte
	next      int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.all) == 0 {
		return 0, io.EOF
	}
	n := min(1+step(p.cuts, &p.next), len(p.all), len(b))
	copy(b, p.all[:n])
	p.all = p.all[n:]
	return n, nil
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

// step returns the next of some numbers, from the beginning again after the last.
func step(numbers []byte, next *int) int {
	if len(numbers) == 0 {
		return 32 << 10
	}
	n := int(numbers[*next%len(numbers)])
	*next++
	return n * n // to span records, 255 is little
}

// Whatever comes in whatever pieces, and is read into buffers of whatever size: Read returns all of it in order, the rest
// of a record or less at a time, and then that the connection ended without close_notify.
func FuzzWireRead(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 2, 'a', 'b', 23, 3, 3, 0, 0, 21, 3, 3, 0, 1, 0}, []byte{0}, []byte{1})
	f.Add([]byte{23, 3, 3, 0, 2, 'a', 'b', 23, 3, 3}, []byte{2, 1}, []byte{200})
	f.Add([]byte{23, 3, 3, 0, 2, 'a', 'b', 23, 3, 3, 0, 2, 'c', 'd'}, []byte{3}, []byte{200}) // cut in the second header
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), []byte{4}, []byte{3, 9})
	f.Add(append([]byte{23, 3, 3, 0x80, 0}, make([]byte, 70000)...), []byte{255}, []byte{90, 255})
	buf := make([]byte, 32<<10)
	f.Fuzz(func(t *testing.T, all, cuts, sizes []byte) {
		w := NewWire(newSocket(&pieces{all: all, cuts: cuts}, false), NewBuffers())
		var got []byte
		left, next := 0, 0 // bytes of the current record that were not returned; 0 where its header is not known yet
		for {
			if left == 0 && len(all)-len(got) >= recordHeader {
				left = recordHeader + (int(all[len(got)+3])<<8 | int(all[len(got)+4]))
			}
			ready := w.Ready()
			n, err := w.Read(buf[:1+step(sizes, &next)%(len(buf)-1)])
			got = append(got, buf[:n]...)
			if err != nil {
				if !errors.Is(err, ErrTruncated) || n != 0 || ready {
					t.Fatalf("Read = %d, %v, Ready() = %v; want 0, %v, false", n, err, ready, ErrTruncated)
				}
				break
			}
			if n == 0 || n > left {
				t.Fatalf("Read = %d of %d bytes that are left of the record", n, left)
			}
			left -= n
		}
		want := all
		if rest := len(all) - len(got); left == 0 && rest < recordHeader {
			want = all[:len(all)-rest] // less than a header is no record
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("read %x, want %x", got, want)
		}
	})
}
