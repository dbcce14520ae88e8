package caller

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// cgroups knows the tree of control groups, version 2. Its numbers are not used again, and a cgroup is never renamed: what
// was found once holds.
type cgroups struct {
	root     string // where it is mounted; "": nowhere
	bySearch bool   // for tests: as if the kernel could not tell the cgroup of a process

	mu    sync.Mutex          // guards the following, and is held for a moment only
	units map[uint64][]byte   // by the cgroup's number; empty: of no unit, or it was gone when we looked
	hints map[uint32][]string // by user: cgroups in which callers were found, the latest first

	walking sync.Mutex // held during a walk
}

const (
	mostUnits   = 8192 // cgroups that are remembered
	mostCgroups = 8192 // that a walk looks at; what is behind is not found
	mostHinted  = 256  // users
	mostHints   = 8    // of a user
	mostPIDs    = 1 << 20
)

// cgroupRoot returns where the tree is mounted: for its own, or beside those of version 1.
func cgroupRoot() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	return ""
}

// unit returns the unit of the cgroup with that number. Finding one for the first time takes a walk through the tree.
func (g *cgroups) unit(id uint64) []byte {
	if unit, ok := g.recall(id); ok {
		return unit
	}
	g.walking.Lock()
	defer g.walking.Unlock()
	if unit, ok := g.recall(id); ok { // by the walk that we waited for
		return unit
	}
	found := map[uint64][]byte{id: nil} // a caller's socket outlives its cgroup
	names := make(map[string][]byte)
	g.walk(func(dir string, id uint64) bool {
		name := unitOf(dir)
		if names[name] == nil {
			names[name] = []byte(name)
		}
		found[id] = names[name]
		return true
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.units == nil || len(g.units)+len(found) > mostUnits {
		g.units = found
	} else {
		for id, unit := range found {
			g.units[id] = unit
		}
	}
	return found[id]
}

func (g *cgroups) recall(id uint64) (unit []byte, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	unit, ok = g.units[id]
	return unit, ok
}

// unitOfProcess returns the unit of a process of that user, by searching the lists of processes that cgroups have. /proc
// would tell at once, but not to a service from which other users' processes are hidden.
func (g *cgroups) unitOfProcess(pid int, uid uint32) []byte {
	g.mu.Lock()
	hints := slices.Clone(g.hints[uid])
	g.mu.Unlock()
	for _, dir := range hints {
		if g.contains(dir, pid) {
			return []byte(unitOf(dir))
		}
	}
	g.walking.Lock()
	defer g.walking.Unlock()
	var in string
	g.walk(func(dir string, _ uint64) bool {
		if !slices.Contains(hints, dir) && g.contains(dir, pid) {
			in = dir
		}
		return in == ""
	})
	if in == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hints == nil || len(g.hints) >= mostHinted {
		g.hints = make(map[uint32][]string)
	}
	g.hints[uid] = slices.Insert(hints, 0, in)[:min(len(hints)+1, mostHints)]
	return []byte(unitOf(in))
}

// contains reports whether a process is in a cgroup itself.
func (g *cgroups) contains(dir string, pid int) bool {
	f, err := os.Open(g.root + dir + "/cgroup.procs")
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	list, _ := io.ReadAll(io.LimitReader(f, mostPIDs)) // what was read counts
	want := strconv.Itoa(pid)
	for line := range bytes.Lines(list) {
		if string(bytes.TrimSuffix(line, []byte("\n"))) == want {
			return true
		}
	}
	return false
}

// walk calls visit with the cgroups below the root, from above, until it returns false. A cgroup's number is that of its
// directory, which the listing of the one above tells.
func (g *cgroups) walk(visit func(dir string, id uint64) bool) {
	if g.root == "" {
		return
	}
	buf := make([]byte, 32<<10)
	dirs := []string{""}
	for i := 0; i < len(dirs); i++ {
		if !g.list(dirs[i], buf, func(name string, id uint64) bool {
			dir := dirs[i] + "/" + name
			dirs = append(dirs, dir)
			return visit(dir, id) && len(dirs) <= mostCgroups
		}) {
			return
		}
	}
}

// list calls visit with the directories in dir, until it returns false.
func (g *cgroups) list(dir string, buf []byte, visit func(name string, id uint64) bool) bool {
	fd, err := unix.Open(g.root+dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true // gone meanwhile
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n <= 0 {
			return true
		}
		// struct linux_dirent64: number, offset, length, type, name.
		for b := buf[:n]; len(b) > 19; {
			length := int(binary.NativeEndian.Uint16(b[16:]))
			if length <= 19 || length > len(b) {
				return true
			}
			name, _, _ := bytes.Cut(b[19:length], []byte{0})
			if b[18] == unix.DT_DIR && string(name) != "." && string(name) != ".." {
				if !visit(string(name), binary.NativeEndian.Uint64(b)) {
					return false
				}
			}
			b = b[length:]
		}
	}
}
