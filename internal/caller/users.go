package caller

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"
)

// users says which numbers of users mean something. In a user namespace all users without a number there read as one.
type users struct {
	some     bool // there are users without a number
	overflow uint32
}

// usersOfNamespace reads user_namespaces(7)' files of ours. What cannot be read is taken for the worst.
func usersOfNamespace() users {
	u := users{some: true, overflow: 65534}
	if b, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
			u.overflow = uint32(n)
		}
	}
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		u.some = !mapsAll(string(b))
	}
	return u
}

// mapsAll reports whether a uid_map gives a number to everybody.
func mapsAll(uidMap string) bool {
	f := strings.Fields(uidMap)
	return len(f) == 3 && f[0] == "0" && f[2] == "4294967295"
}

// hides reports whether uid may be anybody's. (1<<32 - 1 is what the kernel says of nobody at all.)
func (u users) hides(uid uint32) bool { return uid == 1<<32-1 || u.some && uid == u.overflow }

const (
	mostNames = 1024
	nameFor   = time.Minute // until a user may be called otherwise
)

// names remembers what users are called.
type names struct {
	mu    sync.Mutex // guards the rest
	of    map[uint32]string
	since time.Time // when the first of them was learnt
}

// Name returns what the log calls a user: "user billing", or "uid 1000" where /etc/passwd has no name for it. It may read
// that file.
func (l *Lookup) Name(uid uint32) string {
	n := &l.names
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil || len(n.of) >= mostNames || time.Since(n.since) >= nameFor {
		n.of, n.since = make(map[uint32]string), time.Now()
	}
	name, ok := n.of[uid]
	if !ok {
		id := strconv.FormatUint(uint64(uid), 10)
		name = "uid " + id
		if u, err := user.LookupId(id); err == nil && u.Username != "" {
			name = "user " + u.Username
		}
		n.of[uid] = name
	}
	return name
}
