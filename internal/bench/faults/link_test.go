//go:build linux

package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// asListener in the environment makes this binary listen on the address it holds, and hand the socket to its parent.
const asListener = "FAULTS_AS_LISTENER"

// network is two network namespaces, with a link between them for each endpoint.
type network struct {
	t         testing.TB
	near, far string // the proxy's side, the endpoints'
}

// newNetwork skips the test where there can be none.
func newNetwork(t testing.TB, links int) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces are root's")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip(8)")
	}
	n := &network{t: t, near: fmt.Sprintf("faults-%d-near-%d", os.Getpid(), links), far: fmt.Sprintf("faults-%d-far-%d", os.Getpid(), links)}
	for _, name := range []string{n.near, n.far} {
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			t.Skipf("no network namespace can be made: %s", out)
		}
		t.Cleanup(func() { n.ip("netns", "del", name) })
		n.ip("-n", name, "link", "set", "lo", "up")
	}
	for i := range links {
		near, far := fmt.Sprintf("near%d", i), fmt.Sprintf("far%d", i)
		n.ip("-n", n.near, "link", "add", near, "type", "veth", "peer", "name", far, "netns", n.far)
		n.ip("-n", n.near, "address", "add", fmt.Sprintf("192.0.2.%d/30", 4*i+1), "dev", near)
		n.ip("-n", n.far, "address", "add", fmt.Sprintf("192.0.2.%d/30", 4*i+2), "dev", far)
		n.ip("-n", n.near, "link", "set", near, "up")
		n.link(i, "up")
	}
	return n
}

// address is where the endpoint behind a link listens.
func (n *network) address(link int) string { return fmt.Sprintf("192.0.2.%d:8443", 4*link+2) }

// link sets a link up or down, on the far side.
func (n *network) link(i int, state string) {
	n.ip("-n", n.far, "link", "set", fmt.Sprintf("far%d", i), state)
}

func (n *network) ip(args ...string) {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// listen returns a socket on the far side. A process makes it there and hands it over.
func (n *network) listen(address string) (net.Listener, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "")
	defer theirs.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("ip", "netns", "exec", n.far, self)
	cmd.Env = append(os.Environ(), asListener+"="+address)
	cmd.ExtraFiles = []*os.File{theirs}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w: %s", address, n.far, err, out)
	}
	space := make([]byte, syscall.CmsgSpace(4))
	_, got, _, _, err := syscall.Recvmsg(pair[0], make([]byte, 1), space, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(space[:got])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("no socket came from %s: %w", n.far, err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), address)
	defer f.Close()
	return net.FileListener(f)
}

// handOver is the process that listen starts.
func handOver(address string) error {
	ln, err := listen(address)
	if err != nil {
		return err
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	return syscall.Sendmsg(3, []byte{0}, syscall.UnixRights(int(f.Fd())), nil, 0)
}

// A link that is down says nothing to those who use it: to them, the other side has fallen silent.
func TestLinkGoesDown(t *testing.T) {
	for _, endpoints := range []int{1, 3} {
		t.Run(fmt.Sprint(endpoints), func(t *testing.T) {
			join(t)
			n := newNetwork(t, endpoints)
			authority, err := demo.NewAuthority(demo.AuthorityOptions{})
			must(t, err)
			s := &stage{T: t, seen: newLedger()}
			for i := range endpoints {
				e := newEndpoint(t, n.address(i), authority, s.seen)
				e.listen = n.listen
				t.Cleanup(e.close)
				e.up()
				s.endpoints = append(s.endpoints, e)
			}
			s.proxy = newProxy(t, authority, s.endpoints, n.near, hurried())
			s.seen.forget()
			l := s.load()
			l.at[l.requests/4] = func() { n.link(0, "down") }
			l.at[l.requests/4*3] = func() { n.link(0, "up") }
			tally := l.run()
			table := "One endpoint"
			if endpoints > 1 {
				table = "One of three endpoints"
			}
			if s.punctual(l) {
				if endpoints > 1 {
					s.only(tally, idempotent, "200")
				}
				s.only(tally, everything, "200", "502 network_unreachable", "504 connection_timeout", "504 tls_handshake_timeout", "504 response_header_timeout", "503 circuit_breaker_open")
			}
			s.end(table, "its link is down", l)
		})
	}
}
