package caller

import (
	"net"
	"testing"
)

func TestSource(t *testing.T) {
	for _, c := range []struct{ remote, local, want string }{
		{"127.0.0.7:1", "127.0.0.1:9", "this host"},
		{"[::1]:1", "[::1]:9", "this host"},
		{"[::ffff:127.0.0.3]:1", "127.0.0.1:9", "this host"},
		{"192.0.2.1:1", "192.0.2.1:9", "this host"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:9", "this host"},
		{"192.0.2.1:1", "127.0.0.1:9", "this host"}, // a program that binds another address of its host
		{"192.0.2.7:1", "192.0.2.1:9", "192.0.2.7"},
		{"[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.1]:9", "192.0.2.7"},
		{"[2001:db8:1:2::7]:1", "[2001:db8::1]:9", "2001:db8:1:2::/64"},
		{"[2001:db8:1:2:ffff::9]:1", "[2001:db8::1]:9", "2001:db8:1:2::/64"},
	} {
		remote, local := tcp(t, c.remote), tcp(t, c.local)
		if got := Source(remote, local); got != c.want {
			t.Errorf("Source(%s, %s) = %q, want %q", c.remote, c.local, got, c.want)
		}
		if got := IsHere(remote, local); got != (c.want == "this host") {
			t.Errorf("IsHere(%s, %s) = %t", c.remote, c.local, got)
		}
	}
	unix := &net.UnixAddr{Name: "@", Net: "unix"}
	if got := Source(unix, unix); got != "" || IsHere(unix, unix) {
		t.Errorf("Source and IsHere of a Unix socket = %q, %t, want none", got, IsHere(unix, unix))
	}
}

func tcp(t *testing.T, address string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
