package upstream

import (
	"crypto/tls"
	"testing"
	"time"
)

func TestAClassicalChoiceHoldsForAnHour(t *testing.T) {
	begin := time.Now()
	g := groups{base: begin}
	if !g.whole(begin) {
		t.Fatal("a server that nobody knows is not offered everything")
	}
	g.chosen(tls.X25519MLKEM768, begin)
	if !g.whole(begin) {
		t.Error("a server that chose ML-KEM is not offered it any more")
	}
	g.chosen(tls.X25519, begin)
	if g.whole(begin.Add(classicalFor - 1)) {
		t.Error("a server that chose X25519 is offered ML-KEM within the hour")
	}
	if !g.whole(begin.Add(classicalFor)) {
		t.Error("a server that chose X25519 is not offered ML-KEM after an hour")
	}
	g.chosen(tls.X25519, begin)
	g.forget()
	if !g.whole(begin) {
		t.Error("after a failed handshake the server is not offered everything")
	}
}

func TestClassicalGroupsAreThoseThatChosenKnows(t *testing.T) {
	begin := time.Now()
	for _, id := range classical() {
		g := groups{base: begin}
		if g.chosen(id, begin); g.whole(begin) {
			t.Errorf("%v is offered as classical, and its choice is not taken for one", id)
		}
	}
}
