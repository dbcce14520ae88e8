package upstream

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/conn"
	"github.com/mtls-proxy/mtls-proxy/internal/fault"
)

func TestConnectionsLeaveFromBind(t *testing.T) {
	seen := make(chan string, 1)
	w := newWorld(t)
	w.options.Bind = netip.MustParseAddr("127.0.0.9")
	w.buildAt(t, listen(t, func(c net.Conn) { seen <- c.RemoteAddr().String() }))
	w.refused(t) // there is no TLS
	if got := <-seen; !strings.HasPrefix(got, "127.0.0.9:") {
		t.Errorf("the server sees %s, want 127.0.0.9", got)
	}
}

func TestConnectionsToAProxyLeaveFromBind(t *testing.T) {
	seen := make(chan string, 1)
	proxy := listen(t, func(c net.Conn) { seen <- c.RemoteAddr().String() })
	u := offline(t, Options{
		Bind: netip.MustParseAddr("127.0.0.9"), Proxy: proxyAt(t, "http://"+proxy, ""), Servers: []Server{{Address: "[2001:db8::1]:443"}},
	})
	try, f := u.Pick(t.Context(), time.Now(), new(Tried))
	if f != nil {
		t.Fatal(f)
	}
	defer try.End(time.Now(), Abandoned)
	if _, err := u.Dial(t.Context(), &try, new(Tried)); err == nil {
		t.Error("a proxy that says nothing let us through")
	}
	if got := <-seen; !strings.HasPrefix(got, "127.0.0.9:") {
		t.Errorf("the proxy sees %s, want 127.0.0.9", got)
	}
}

func TestFaultOfABindThatIsNotHere(t *testing.T) {
	for _, tt := range []struct{ bind, want string }{
		{"192.0.2.77", "is not an address of this host"}, // for documentation, so nobody's
		{"::1", "is of another family"},
	} {
		w := newWorld(t)
		w.build(t)
		w.up.o.Bind = netip.MustParseAddr(tt.bind)
		w.up.up.dialer = conn.NewDialer(w.up.o.Bind)
		f := w.refused(t)
		if f.Token != fault.ConfigurationError || !strings.Contains(f.Detail, tt.want) || OutcomeOf(f) != Abandoned {
			t.Errorf("bind %s: fault = %v, %q; want one that says: %s", tt.bind, f, f.Detail, tt.want)
		}
	}
}

func TestBindChoosesTheFamily(t *testing.T) {
	for _, tt := range []struct{ bind, addresses, want string }{
		{"10.0.0.5", "2001:db8::1 10.0.0.1", "a.test@10.0.0.1:443"},
		{"2001:db8::5", "2001:db8::1 10.0.0.1", "a.test@[2001:db8::1]:443"},
		{"10.0.0.5", "2001:db8::1", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := offline(t, Options{
				Bind: netip.MustParseAddr(tt.bind), Servers: []Server{{Address: "a.test:443"}},
				DNS: &zone{addrs: map[string]string{"a.test": tt.addresses}},
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go u.Run(ctx, nil)
			try, f := u.Pick(ctx, time.Now(), new(Tried))
			if tt.want == "" {
				if f == nil || f.Token != fault.DNSError || !strings.Contains(f.Detail, "one of the same family") {
					t.Errorf("with no address of the family of %s: %v", tt.bind, f)
				}
				return
			}
			if f != nil || u.Len() != 1 || try.Endpoint.Address() != tt.want {
				t.Fatalf("bind %s: %d endpoints, fault %v; want %s alone", tt.bind, u.Len(), f, tt.want)
			}
			try.End(time.Now(), Abandoned)
		})
	}
}

// The addresses of a name share its weight; backups are a tier of their own.
func TestServersHaveWeightsAndBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := offline(t, Options{
			Balance: RoundRobin,
			Servers: []Server{{Address: "a.test:443", Weight: 3}, {Address: "10.0.1.1:443"}, {Address: "10.0.2.1:443", Weight: 9, Backup: true}},
			DNS:     &zone{addrs: map[string]string{"a.test": "10.0.0.1 10.0.0.2"}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go u.Run(ctx, nil)
		<-u.resolver.First()
		synctest.Wait()
		share := func() map[string]int {
			share := make(map[string]int)
			for range 800 {
				try, f := u.Pick(ctx, time.Now(), new(Tried))
				if f != nil {
					t.Fatal(f)
				}
				share[try.Endpoint.Address()]++
				try.End(time.Now(), Success)
			}
			return share
		}
		time.Sleep(time.Minute) // those that joined have their whole share
		if got := share(); got["a.test@10.0.0.1:443"] != 300 || got["a.test@10.0.0.2:443"] != 300 || got["10.0.1.1:443"] != 200 {
			t.Errorf("of 800 requests, %v; want 300 for each address of a.test, 200 for the other and none for the backup", got)
		}
		for _, e := range u.Endpoints()[:3] {
			u.Drain(e.Address)
		}
		if got := share(); got["10.0.2.1:443"] != 800 {
			t.Errorf("of 800 requests while the others are drained, %v; want all for the backup", got)
		}
	})
}

// Servers that a proxy connects to have weights and backups too.
func TestServersBehindAProxyHaveWeights(t *testing.T) {
	u := offline(t, Options{
		Balance: RoundRobin, Proxy: proxyAt(t, "http://127.0.0.1:1", ""),
		Servers: []Server{{Address: "a.test:443", Weight: 3}, {Address: "b.test:443"}, {Address: "c.test:443", Backup: true}},
	})
	share := make(map[string]int)
	for range 8 {
		try, f := u.Pick(t.Context(), time.Now(), new(Tried))
		if f != nil {
			t.Fatal(f)
		}
		share[try.Endpoint.Address()]++
		try.End(time.Now(), Success)
	}
	if share["a.test:443"] != 6 || share["b.test:443"] != 2 {
		t.Errorf("of 8 requests, %v; want 6 and 2", share)
	}
}
