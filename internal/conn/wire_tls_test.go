package conn

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// configs makes a client's and a server's configuration that fit, for one version of TLS.
func configs(t *testing.T, version uint16) (client, server *tls.Config) {
	t.Helper()
	a, err := demo.NewAuthority(demo.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Server()
	if err != nil {
		t.Fatal(err)
	}
	client = &tls.Config{
		RootCAs: a.Pool(), ServerName: "localhost", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(4), DynamicRecordSizingDisabled: true,
	}
	server = &tls.Config{Certificates: []tls.Certificate{issued.TLS()}, MinVersion: version, MaxVersion: version}
	return client, server
}

// eachTLS is each for both versions of TLS: wire is the client's, server is crypto/tls on an ordinary connection.
func eachTLS(t *testing.T, claim func(t *testing.T, client *tls.Conn, wire *Wire, server *tls.Conn, peer *valve)) {
	t.Helper()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c, s := configs(t, version)
			each(t, func(t *testing.T, socket *Socket, peer net.Conn, _ network) {
				wire, held := NewWire(socket, NewBuffers()), &valve{Conn: peer}
				client, server := tls.Client(wire, c), tls.Server(held, s)
				shaken := begin(func() (int, error) { return 0, server.Handshake() })
				if err := client.Handshake(); err != nil {
					t.Fatal(err)
				}
				// With TLS 1.3 the last of the client's handshake is still held back.
				flushed := begin(func() (int, error) { return 0, wire.Flush() })
				if r := soon(t, "the server's handshake", shaken); r.err != nil {
					t.Fatal(r.err)
				}
				soon(t, "Flush", flushed)
				claim(t, client, wire, server, held)
			})
		})
	}
}

// valve holds writes back while it is shut, for a test to let through as much as it wants.
type valve struct {
	net.Conn
	mu   sync.Mutex // guards the following
	shut bool
	held []byte
}

func (v *valve) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shut {
		v.held = append(v.held, b...)
		return len(b), nil
	}
	return v.Conn.Write(b)
}

// turn shuts the valve or opens it.
func (v *valve) turn(shut bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shut = shut
}

// release lets n of the bytes through, or all of them if n is too many.
func (v *valve) release(t *testing.T, n int) <-chan result {
	v.mu.Lock()
	defer v.mu.Unlock()
	n = min(n, len(v.held))
	b := v.held[:n]
	v.held = v.held[n:]
	return write(t, v.Conn, b)
}

func (v *valve) holds() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.held)
}

func TestWireCarriesTLS(t *testing.T) {
	sizes := []int{1, 2, 5, 100, 511, 4096, 16<<10 - 1, 16 << 10}
	eachTLS(t, func(t *testing.T, client *tls.Conn, _ *Wire, server *tls.Conn, _ *valve) {
		go io.Copy(server, server)
		b := make([]byte, 16<<10)
		for i, size := range sizes {
			out := bytes.Repeat([]byte{byte(i + 1)}, size)
			if n, err := client.Write(out); n != size || err != nil {
				t.Fatalf("Write of %d bytes = %d, %v", size, n, err)
			}
			r := soon(t, "the echo", begin(func() (int, error) { return io.ReadFull(client, b[:size]) }))
			if r.err != nil || !bytes.Equal(b[:size], out) {
				t.Fatalf("echo of %d bytes: %d, %v", size, r.n, r.err)
			}
		}
	})
}

// As during an upload: one goroutine writes, another reads, and both directions are full.
func TestWireCarriesBulkBothWaysAtOnce(t *testing.T) {
	const size = 4 << 20
	eachTLS(t, func(t *testing.T, client *tls.Conn, wire *Wire, server *tls.Conn, _ *valve) {
		out := make([]byte, size)
		for i := range out {
			out[i] = byte(i * 7 >> 4)
		}
		wire.Apart(true)
		send := func(c *tls.Conn) <-chan result {
			return begin(func() (n int, err error) {
				for piece := 1; n < size && err == nil; piece = piece*3%50000 + 1 {
					var m int
					m, err = c.Write(out[n:min(n+piece, size)])
					n += m
				}
				if c == client && err == nil {
					err = wire.Flush()
				}
				return n, err
			})
		}
		receive := func(c *tls.Conn, sum *[sha256.Size]byte) <-chan result {
			return begin(func() (int, error) {
				h := sha256.New()
				n, err := io.CopyN(h, c, size)
				h.Sum(sum[:0])
				return int(n), err
			})
		}
		var atClient, atServer [sha256.Size]byte
		all := map[string]<-chan result{
			"the client's write": send(client), "the server's write": send(server),
			"the client's read": receive(client, &atClient), "the server's read": receive(server, &atServer),
		}
		for what, got := range all {
			if r := soon(t, what, got); r.n != size || r.err != nil {
				t.Errorf("%s = %d, %v; want %d, nil", what, r.n, r.err, size)
			}
		}
		if want := sha256.Sum256(out); atClient != want || atServer != want {
			t.Error("what arrived is not what was written")
		}
		wire.Apart(false)
	})
}

// A record that arrives in two parts, cut anywhere: an instant read between them finds nothing, and crypto/tls
// continues where it was.
func TestWireInstantReadIsTemporary(t *testing.T) {
	eachTLS(t, func(t *testing.T, client *tls.Conn, wire *Wire, server *tls.Conn, peer *valve) {
		wire.Instant(true)
		b := make([]byte, 64)
		none := func(what string) {
			t.Helper()
			if n, err := client.Read(b); n != 0 || !errors.Is(err, ErrWouldBlock) {
				t.Fatalf("%s: Read = %d, %v; want 0, %v", what, n, err, ErrWouldBlock)
			}
		}
		none("with nothing sent")
		peer.turn(true)
		for cut := 0; ; cut++ {
			if _, err := server.Write([]byte{byte(cut), 'x'}); err != nil {
				t.Fatal(err)
			}
			size := peer.holds()
			first := peer.release(t, cut)
			none("with a part of a record")
			none("with a part of a record, again")
			second := func() <-chan result { return peer.release(t, size) }
			var rest <-chan result
			n, err := 0, error(nil)
			eventually(t, "the record", func() bool {
				if rest == nil {
					select {
					case <-first:
						rest = second()
					default:
					}
				}
				n, err = client.Read(b)
				return !errors.Is(err, ErrWouldBlock)
			})
			if n != 2 || b[0] != byte(cut) || err != nil {
				t.Fatalf("cut after %d: Read = %v, %v; want %v", cut, b[:n], err, []byte{byte(cut), 'x'})
			}
			soon(t, "the rest of the record", rest)
			if cut == size-1 {
				break
			}
		}
		wire.Instant(false)
		peer.turn(false)
		sent := begin(func() (int, error) { return server.Write([]byte("again")) })
		if r := soon(t, "Read", begin(func() (int, error) { return client.Read(b) })); string(b[:r.n]) != "again" {
			t.Errorf("Read = %q, %v; want %q", b[:r.n], r.err, "again")
		}
		soon(t, "Write", sent)
	})
}

func TestWireTellsAnEndFromATruncation(t *testing.T) {
	ends := map[string]struct {
		end  func(server *tls.Conn, peer *valve)
		want error
	}{
		"close_notify": {func(server *tls.Conn, _ *valve) { server.Close() }, io.EOF},
		"bare":         {func(_ *tls.Conn, peer *valve) { peer.Conn.Close() }, ErrTruncated},
		"within a record": {func(server *tls.Conn, peer *valve) {
			peer.turn(true)
			_, _ = server.Write([]byte("never whole"))
			peer.mu.Lock()
			defer peer.mu.Unlock()
			_, _ = peer.Conn.Write(peer.held[:10])
			peer.Conn.Close()
		}, ErrTruncated},
	}
	for name, c := range ends {
		t.Run(name, func(t *testing.T) {
			eachTLS(t, func(t *testing.T, client *tls.Conn, _ *Wire, server *tls.Conn, peer *valve) {
				ended := begin(func() (int, error) {
					_, err := server.Write([]byte("body"))
					c.end(server, peer)
					return 0, err
				})
				var got []byte
				b := make([]byte, 64)
				for {
					r := soon(t, "Read", begin(func() (int, error) { return client.Read(b) }))
					got = append(got, b[:r.n]...)
					if r.err == nil {
						continue
					}
					if !errors.Is(r.err, c.want) || errors.Is(r.err, io.EOF) != (c.want == io.EOF) {
						t.Errorf("Read = %v, want %v", r.err, c.want)
					}
					break
				}
				if string(got) != "body" {
					t.Errorf("read %q, want %q", got, "body")
				}
				if r := soon(t, "the server", ended); r.err != nil {
					t.Error(r.err)
				}
				if _, err := client.Read(b); !errors.Is(err, c.want) {
					t.Errorf("another Read = %v, want %v", err, c.want)
				}
			})
		})
	}
}

// Tickets of TLS 1.3 come after the handshake, when nobody reads for the sake of them.
func TestWireTakesTickets(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c, s := configs(t, version)
			for round := range 2 {
				ours, theirs := tcpPair(t)
				defer theirs.Close()
				wire, server := NewWire(NewSocket(ours), NewBuffers()), tls.Server(theirs, s)
				client := tls.Client(wire, c)
				defer client.Close()
				shaken := begin(func() (int, error) { return 0, server.Handshake() })
				if err := client.Handshake(); err != nil {
					t.Fatal(err)
				}
				if err := wire.Flush(); err != nil {
					t.Fatal(err)
				}
				if r := soon(t, "the server's handshake", shaken); r.err != nil {
					t.Fatal(r.err)
				}
				wire.Instant(true)
				if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrWouldBlock) {
					t.Errorf("Read = %d, %v; want 0, %v", n, err, ErrWouldBlock)
				}
				wire.Rest()
				if got, want := client.ConnectionState().DidResume, round > 0; got != want {
					t.Errorf("connection %d: resumed = %v, want %v", round, got, want)
				}
			}
		})
	}
}

func TestWireRests(t *testing.T) {
	eachTLS(t, func(t *testing.T, client *tls.Conn, wire *Wire, server *tls.Conn, _ *valve) {
		go io.Copy(server, server)
		b := make([]byte, 64<<10)
		for _, size := range []int{3, 64 << 10, 3} {
			written := begin(func() (int, error) {
				n, err := client.Write(b[:size])
				if err == nil {
					err = wire.Flush()
				}
				return n, err
			})
			wire.Apart(true)
			r := soon(t, "the echo", begin(func() (int, error) { return io.ReadFull(client, make([]byte, size)) }))
			if r.err != nil {
				t.Fatal(r.err)
			}
			soon(t, "Write", written)
			wire.Apart(false)
			wire.Rest()
			if wire.in != nil || wire.out != nil {
				t.Errorf("after Rest in = %v, out = %v; want none", wire.in != nil, wire.out != nil)
			}
		}
		// What was not sent or returned is not given away.
		if _, err := client.Write([]byte("kept")); err != nil {
			t.Fatal(err)
		}
		wire.Rest()
		if r := soon(t, "the echo", begin(func() (int, error) { return io.ReadFull(client, b[:4]) })); string(b[:4]) != "kept" {
			t.Errorf("echo = %q, %v; want %q", b[:4], r.err, "kept")
		}
	})
}

// The server reads through a Wire here: crypto/tls alone takes a bare end for a proper one.
func TestWireCloseSendsCloseNotify(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c, s := configs(t, version)
			each(t, func(t *testing.T, socket *Socket, peer net.Conn, n network) {
				client := tls.Client(NewWire(socket, NewBuffers()), c)
				server := tls.Server(NewWire(newSocket(peer, socket.raw != nil), NewBuffers()), s)
				heard := begin(func() (int, error) {
					b := make([]byte, 64)
					n, err := io.ReadFull(server, b)
					return n, err
				})
				if _, err := client.Write([]byte("held back")); err != nil {
					t.Fatal(err)
				}
				if err := client.Close(); err != nil {
					t.Errorf("Close = %v", err)
				}
				// ReadFull makes ErrUnexpectedEOF of an io.EOF, and returns other errors as they are.
				if r := soon(t, "the server", heard); r.n != len("held back") || r.err != io.ErrUnexpectedEOF {
					t.Errorf("the server read %d bytes, %v; want %d and a proper end", r.n, r.err, len("held back"))
				}
				server.Close()
			})
		})
	}
}

// A Wire whose writer is stuck can be closed all the same.
func TestWireCloseEndsAWrite(t *testing.T) {
	eachTLS(t, func(t *testing.T, client *tls.Conn, wire *Wire, _ *tls.Conn, _ *valve) {
		wrote := begin(func() (int, error) { return client.Write(make([]byte, 64<<20)) })
		eventually(t, "WriteBlocked", wire.socket.WriteBlocked)
		if r := soon(t, "Close", begin(func() (int, error) { return 0, client.Close() })); r.err != nil {
			t.Errorf("Close = %v", r.err)
		}
		if r := soon(t, "Write", wrote); !isClosed(r.err) {
			t.Errorf("Write = %v, want %v", r.err, net.ErrClosed)
		}
	})
}
