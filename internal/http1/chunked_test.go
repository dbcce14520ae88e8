package http1

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

// readChunks feeds text to d in pieces of the given size.
func readChunks(d *ChunkReader, text string, piece int, l *Limits) (read, trailers string, used int, err error) {
	var body strings.Builder
	for used < len(text) && !d.Done() {
		data, n, err := d.Next([]byte(text[used:min(used+piece, len(text))]), l)
		if err != nil {
			return "", "", used, err
		}
		if n == 0 {
			return "", "", used, errors.New("Next consumed nothing")
		}
		body.Write(data)
		used += n
	}
	if !d.Done() {
		return "", "", used, errors.New("unfinished")
	}
	for _, f := range d.Trailers() {
		trailers += fmt.Sprintf("%s: %s|", f.Name, f.Value)
	}
	return body.String(), trailers, used, nil
}

func TestChunkReader(t *testing.T) {
	for _, tt := range []struct{ name, text, want, trailers string }{
		{"nothing", "0\r\n\r\n", "", ""},
		{"two chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", ""},
		{"sizes in any case, leading zeros", "00a\r\n0123456789\r\nB\r\n01234567890\r\n000\r\n\r\n", "012345678901234567890", ""},
		{"line breaks in data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", ""},
		{"extensions", "3;a;b=c ; d=\"e;f\" ;g = \"\\\"\" ; h\r\nabc\r\n0 ;x\r\n\r\n", "abc", ""},
		{"trailers", "0\r\nX-Sum:  1 \r\nGrpc-Status: 0\r\n\r\n", "", "X-Sum: 1|Grpc-Status: 0|"},
		{"trailers that are not allowed", "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: a\r\nX_Forwarded_For: a\r\nClient-Cert: a\r\nAuthorization: a\r\nCookie: a\r\nSet-Cookie: a\r\nCache-Control: a\r\nContent-Type: a\r\nIf-Match: a\r\nX-Kept: 1\r\n\r\n", "", "X-Kept: 1|"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d ChunkReader
			for piece := 1; piece <= len(tt.text)+4; piece++ {
				d.Reset()
				got, trailers, used, err := readChunks(&d, tt.text+"GET ", piece, nil)
				if err != nil || got != tt.want || trailers != tt.trailers || used != len(tt.text) {
					t.Fatalf("in pieces of %d: %q, %q, %d, %v; want %q, %q, %d", piece, got, trailers, used, err, tt.want, tt.trailers, len(tt.text))
				}
			}
		})
	}
}

func TestChunkReaderAcceptsPaddingInResponses(t *testing.T) {
	const text = "5  \r\nhello\r\n1;\r\n!\r\n0\t\r\n\r\n"
	for piece := 1; piece <= len(text); piece++ {
		d := ChunkReader{Response: true}
		d.Reset()
		if read, _, used, err := readChunks(&d, text, piece, nil); err != nil || read != "hello!" || used != len(text) {
			t.Errorf("in pieces of %d: %q, %d, %v; want hello!, %d", piece, read, used, err, len(text))
		}
		if _, _, _, err := readChunks(new(ChunkReader), text, piece, nil); err == nil {
			t.Errorf("in pieces of %d: a request's padded size was accepted", piece)
		}
	}
}

func TestChunkReaderRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Kind
	}{
		{"no size", "\r\n\r\n", BadChunk},
		{"size is no number", "x\r\n", BadChunk},
		{"0x", "0x5\r\nhello\r\n", BadChunk},
		{"sign", "+5\r\nhello\r\n", BadChunk},
		{"below zero", "-5\r\nhello\r\n", BadChunk},
		{"space before the size", " 5\r\nhello\r\n", BadChunk},
		{"space behind the size", "5 \r\nhello\r\n", BadChunk},
		{"two sizes", "5 5\r\nhello\r\n", BadChunk},
		{"bare LF behind the size", "5\nhello\r\n0\r\n\r\n", BadChunk},
		{"bare CR behind the size", "5\rhello\r\n0\r\n\r\n", BadChunk},
		{"extension without a name", "5;\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"extension that is no token", "5;a@b\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"extension without its value", "5;a=\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"quoted extension without an end", "5;a=\"b\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"token behind a quoted extension", "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"blank behind an extension", "5;a \r\nhello\r\n0\r\n\r\n", BadChunk},
		{"bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n", BadChunk},
		{"bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"NUL in an extension", "5;\x00\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"extension too long", "5;" + strings.Repeat("a", maxOverhead+1) + "\r\n", BadChunk},
		{"extensions too long in sum", strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 20) + "0\r\n\r\n", BadChunk},
		{"17 digits", "00000000000000005\r\nhello\r\n", BadChunk},
		{"size beyond 63 bits", "8000000000000000\r\n", BadChunk},
		{"size beyond 64 bits", "ffffffffffffffff\r\n", BadChunk},
		{"data longer than its size", "4\r\nhello\r\n0\r\n\r\n", BadChunk},
		{"bare LF behind data", "5\r\nhello\n0\r\n\r\n", BadChunk},
		{"no line break behind data", "5\r\nhello0\r\n\r\n", BadChunk},
		{"bare LF at the end", "0\r\n\n", BadChunk},
		{"bare CR at the end", "0\r\n\rX", BadChunk},
		{"bare LF behind a trailer", "0\r\nX: y\n\r\n", BadChunk},
		{"trailer without colon", "0\r\nX\r\n\r\n", BadChunk},
		{"obs-fold in a trailer", "0\r\nX: y\r\n z\r\n\r\n", BadChunk},
		{"NUL in a trailer", "0\r\nX: \x00\r\n\r\n", BadChunk},
		{"trailer section too large", "0\r\nX: " + strings.Repeat("y", 200) + "\r\n\r\n", HeadTooLarge},
		{"too many trailers", "0\r\n" + strings.Repeat("X: y\r\n", 6) + "\r\n", HeadTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, len(tt.text)} {
				_, _, _, err := readChunks(new(ChunkReader), tt.text, piece, &Limits{MaxHead: 100, MaxFields: 5})
				var e *Error
				if !errors.As(err, &e) || e.Kind != tt.want {
					t.Errorf("in pieces of %d: %v; want kind %d", piece, err, tt.want)
				}
			}
		})
	}
}

func TestChunkExtensionsThatDataPaysForPass(t *testing.T) {
	chunk := "400;" + strings.Repeat("a", 1000) + "\r\n" + strings.Repeat("x", 1024) + "\r\n"
	if _, _, _, err := readChunks(new(ChunkReader), strings.Repeat(chunk, 100)+"0\r\n\r\n", 4096, nil); err != nil {
		t.Error(err)
	}
}

func TestAppendChunkHeader(t *testing.T) {
	for n, want := range map[int]string{1: "1\r\n", 15: "f\r\n", 16: "10\r\n", 255: "ff\r\n", 65536: "10000\r\n", 1<<62 + 1: "4000000000000001\r\n"} {
		if got := string(AppendChunkHeader(nil, n)); got != want {
			t.Errorf("of %d: %q, want %q", n, got, want)
		}
	}
}

func TestAppendChunk(t *testing.T) {
	if got := string(AppendChunk([]byte("head"), []byte("some data"))); got != "head9\r\nsome data\r\n" {
		t.Errorf("AppendChunk() = %q", got)
	}
	if n := len(AppendChunkHeader(nil, math.MaxInt)) + len("\r\n"); n > ChunkFrame {
		t.Errorf("the frame of the largest chunk has %d bytes, more than ChunkFrame", n)
	}
}
