package admission

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// This file speaks as much of the store's protocol, RESP 2, as the script needs: commands of strings, and replies that are a line or an
// array of three integers. No announced length is allocated: a peer in the store's place could announce more than there is memory.

// maxReply is the longest line of a reply, in bytes: an error's text.
const maxReply = 1024

// wire is a connection to the store. It belongs to one goroutine.
type wire struct {
	net.Conn
	r   *bufio.Reader
	out []byte
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, r: bufio.NewReaderSize(c, maxReply)} }

// command puts one into what send sends.
func (w *wire) command(args ...string) {
	w.out = append(w.out, '*')
	w.out = strconv.AppendInt(w.out, int64(len(args)), 10)
	w.out = append(w.out, "\r\n"...)
	for _, a := range args {
		w.out = append(w.out, '$')
		w.out = strconv.AppendInt(w.out, int64(len(a)), 10)
		w.out = append(w.out, "\r\n"...)
		w.out = append(w.out, a...)
		w.out = append(w.out, "\r\n"...)
	}
}

func (w *wire) send() error {
	_, err := w.Write(w.out)
	w.out = w.out[:0]
	return err
}

// refusal is an error that the store answered.
type refusal string

func (r refusal) Error() string { return string(r) }

// elsewhere reports whether another server has the key.
func (r refusal) elsewhere() bool {
	kind, _, _ := strings.Cut(string(r), " ")
	return kind == "MOVED" || kind == "ASK"
}

// errForeign is for what is no reply to a command of ours. There is no telling where the next one begins.
var errForeign = errors.New("what answers is no store, or not asked by us")

// status reads a reply that is one line; a refusal is its error.
func (w *wire) status() error {
	kind, _, err := w.line()
	if err == nil && kind != '+' {
		err = errForeign
	}
	return err
}

// numbers reads a reply of three integers; a refusal is its error.
func (w *wire) numbers() (n [3]int64, err error) {
	kind, text, err := w.line()
	switch {
	case err != nil:
		return n, err
	case kind != '*':
		return n, errForeign
	case text != "3":
		return n, fmt.Errorf("the script returned %.20q values instead of 3: %w", text, errForeign)
	}
	for i := range n {
		kind, text, err := w.line()
		if err != nil {
			return n, err
		}
		if n[i], err = strconv.ParseInt(text, 10, 64); kind != ':' || err != nil {
			return n, errForeign
		}
	}
	return n, nil
}

// line reads one, of any of the kinds that fit into one.
func (w *wire) line() (kind byte, text string, err error) {
	b, err := w.r.ReadSlice('\n')
	switch n := len(b); {
	case errors.Is(err, bufio.ErrBufferFull):
		return 0, "", errForeign
	case err != nil:
		return 0, "", err
	case n < 3 || b[n-2] != '\r':
		return 0, "", errForeign
	case b[0] == '-':
		return 0, "", refusal(b[1 : n-2])
	default:
		return b[0], string(b[1 : n-2]), nil
	}
}
