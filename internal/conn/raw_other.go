//go:build !linux

package conn

const (
	rawByDefault = false
	descriptors  = false
)

// None of these is called: without raw descriptors a Socket goes through net.Conn.

func readNow(uintptr, []byte) (int, error)  { return 0, ErrWouldBlock }
func writeNow(uintptr, []byte) (int, error) { return 0, ErrWouldBlock }
func peerEnd(uintptr) End                   { return Open }
func setLowWater(uintptr, int)              {}
func readable(uintptr) bool                 { return true }
