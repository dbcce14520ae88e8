//go:build linux

package conn

import (
	"io"
	"net"
	"testing"
)

// parked returns a Socket that is parked in l, and its peer. Its wakes arrive on the channel.
func parked(t *testing.T, l *Lot) (*Socket, net.Conn, chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := NewSocket(c)
	t.Cleanup(func() { _ = s.Close() })
	woken := make(chan struct{}, 8)
	if err := l.Park(s, func() { woken <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	return s, peer, woken
}

func newLot(t *testing.T) *Lot {
	t.Helper()
	l, err := NewLot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestAParkedSocketIsWokenOnceByItsFirstBytes(t *testing.T) {
	l := newLot(t)
	s, peer, woken := parked(t, l)
	if n := l.Len(); n != 1 {
		t.Errorf("Len() = %d with one parked", n)
	}
	if _, err := io.WriteString(peer, "hello"); err != nil {
		t.Fatal(err)
	}
	<-woken
	if n := l.Len(); n != 0 {
		t.Errorf("Len() = %d after it was woken", n)
	}
	b := make([]byte, 16)
	if n, err := s.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("Read() = %q, %v", b[:n], err)
	}
	// More bytes wake nobody who is not parked; another Park hears of them at once.
	if _, err := io.WriteString(peer, "again"); err != nil {
		t.Fatal(err)
	}
	if err := l.Park(s, func() { woken <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	<-woken
	if len(woken) != 0 {
		t.Error("it was woken twice")
	}
}

func TestAParkedSocketIsWokenByTheEndOfItsPeer(t *testing.T) {
	l := newLot(t)
	s, peer, woken := parked(t, l)
	peer.Close()
	<-woken
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read() = %v; want io.EOF", err)
	}
}

func TestWhoLeftIsNotWoken(t *testing.T) {
	l := newLot(t)
	s, peer, woken := parked(t, l)
	l.Leave(s)
	_, other, second := parked(t, l)
	for _, p := range []net.Conn{peer, other} {
		if _, err := io.WriteString(p, "x"); err != nil {
			t.Fatal(err)
		}
	}
	<-second // events come in order, so the first one's is over
	if len(woken) != 0 {
		t.Error("a socket that had left was woken")
	}
}

func TestManyAreWoken(t *testing.T) {
	l := newLot(t)
	var all []chan struct{}
	for range 200 {
		_, peer, woken := parked(t, l)
		all = append(all, woken)
		if _, err := io.WriteString(peer, "x"); err != nil {
			t.Fatal(err)
		}
	}
	for _, woken := range all {
		<-woken
	}
}

func TestASocketWithoutDescriptorCannotBeParked(t *testing.T) {
	l := newLot(t)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := l.Park(NewSocket(a), func() {}); err == nil {
		t.Error("a pipe was parked")
	}
}
