package caller

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

var from, to = netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8080")

// said is an answer of the kernel, of user 1000 and cgroup 77.
func said(family, state byte, from, to netip.AddrPort, inode uint32) []byte {
	b := make([]byte, lenHeader+lenSocket+4+4+12)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint32(b[8:], 9)
	m := b[lenHeader:]
	m[0], m[1] = family, state
	binary.BigEndian.PutUint16(m[4:], from.Port())
	binary.BigEndian.PutUint16(m[6:], to.Port())
	if family == unix.AF_INET {
		copy(m[8:], from.Addr().AsSlice())
		copy(m[24:], to.Addr().AsSlice())
	} else {
		a, b := from.Addr().As16(), to.Addr().As16()
		copy(m[8:], a[:])
		copy(m[24:], b[:])
	}
	binary.NativeEndian.PutUint32(m[64:], 1000)
	binary.NativeEndian.PutUint32(m[68:], inode)
	attrs := m[lenSocket:]
	binary.NativeEndian.PutUint16(attrs[0:], 4) // an empty one before
	binary.NativeEndian.PutUint16(attrs[2:], 1)
	binary.NativeEndian.PutUint16(attrs[4:], 12)
	binary.NativeEndian.PutUint16(attrs[6:], attrCgroup)
	binary.NativeEndian.PutUint64(attrs[8:], 77)
	return b
}

func TestAnswersThatNameTheOwner(t *testing.T) {
	for name, tt := range map[string]struct {
		said  []byte
		known bool
	}{
		"connected":                     {said(unix.AF_INET, established, from, to, 5), true},
		"of a socket for both families": {said(unix.AF_INET6, established, from, to, 5), true},
		"the caller has sent all":       {said(unix.AF_INET, finWait2, from, to, 5), true},
		"held by nobody":                {said(unix.AF_INET, established, from, to, 0), false},
		"in TIME_WAIT":                  {said(unix.AF_INET, 6, from, to, 5), false},
		"connecting":                    {said(unix.AF_INET, 2, from, to, 5), false},
		"listening":                     {said(unix.AF_INET, 10, from, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), 5), false},
		"from another port":             {said(unix.AF_INET, established, netip.AddrPortFrom(from.Addr(), 1), to, 5), false},
		"to another port":               {said(unix.AF_INET, established, from, netip.AddrPortFrom(to.Addr(), 1), 5), false},
	} {
		o, ok, err := answer(tt.said, from, to, 9)
		if !ok || err != nil || (o != nil) != tt.known || o != nil && *o != (owner{1000, 77}) {
			t.Errorf("%s: answer() = %+v, %v, %v; want an owner: %v", name, o, ok, err, tt.known)
		}
	}
}

func TestAnswersThatNameNobody(t *testing.T) {
	refused := func(errno unix.Errno) []byte {
		b := said(unix.AF_INET, established, from, to, 5)
		binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
		binary.NativeEndian.PutUint32(b[lenHeader:], uint32(-int32(errno)))
		return b
	}
	if o, ok, err := answer(refused(unix.ENOENT), from, to, 9); o != nil || !ok || err != nil {
		t.Errorf("no such socket: answer() = %+v, %v, %v", o, ok, err)
	}
	if o, ok, err := answer(refused(unix.EPERM), from, to, 9); o != nil || !ok || err != unix.EPERM {
		t.Errorf("refused: answer() = %+v, %v, %v", o, ok, err)
	}
	if _, ok, _ := answer(said(unix.AF_INET, established, from, to, 5), from, to, 10); ok {
		t.Error("the answer to another question was taken")
	}
	whole := said(unix.AF_INET, established, from, to, 5)
	for n := range whole {
		if o, _, _ := answer(whole[:n], from, to, 9); o != nil {
			t.Errorf("the first %d bytes of an answer name %+v", n, o)
		}
		short := append([]byte(nil), whole[:n]...)
		if n >= lenHeader {
			binary.NativeEndian.PutUint32(short, uint32(n))
		}
		if o, ok, err := answer(short, from, to, 9); n < lenHeader+lenSocket && (o != nil || ok && err == nil) {
			t.Errorf("an answer of %d bytes = %+v, %v", n, o, err)
		}
	}
}
