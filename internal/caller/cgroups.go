package caller

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups knows the tree of control groups, version 2. Its numbers are not used again, and a cgroup is never renamed: what
// was found once holds.
//
// What is not known takes a walk through the tree, for which callers that come from ever new cgroups could have us
// busy. There is one at a time, it serves all who asked before it began, and a rest follows.
type cgroups struct {
	root     string // where it is mounted; "": nowhere
	bySearch bool   // for tests: as if the kernel could not tell the cgroup of a process

	mu        sync.Mutex          // guards the following, and is held for a moment only
	units     map[uint64][]byte   // by the cgroup's number; empty: of no unit, or it was gone when we looked
	hints     map[uint32][]string // by user: cgroups in which callers were found, the latest first
	begun     uint64              // walks
	processes map[int]string      // where each one is, as of walk number listed
	listed    uint64

	walking sync.Mutex // held during a walk; guards the following
	rest    time.Time  // before that, no other begins
}

const (
	mostUnits     = 8192 // cgroups that are remembered
	mostCgroups   = 8192 // that a walk looks at; what is behind is not found
	mostHinted    = 256  // users
	mostHints     = 8    // of a user
	mostProcesses = 1 << 17
	mostList      = 1 << 20 // bytes of a cgroup's list of processes

	restPerWalk = 4 // a rest is that many times as long as the walk
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

// unit returns the unit of the cgroup with that number.
func (g *cgroups) unit(id uint64) []byte {
	g.mu.Lock()
	unit, ok := g.units[id]
	asked := g.begun
	g.mu.Unlock()
	if ok {
		return unit
	}
	g.survey(asked, false)
	g.mu.Lock()
	defer g.mu.Unlock()
	unit, ok = g.units[id]
	if !ok && len(g.units) < mostUnits {
		g.units[id] = nil // a caller's socket outlives its cgroup
	}
	return unit
}

// unitOfProcess returns the unit of a process of that user, by searching the lists of processes that cgroups have. /proc
// would tell at once, but not to a service from which other users' processes are hidden.
func (g *cgroups) unitOfProcess(pid int, uid uint32) []byte {
	g.mu.Lock()
	hints, asked := g.hints[uid], g.begun
	g.mu.Unlock()
	want := strconv.Itoa(pid)
	for _, dir := range hints {
		found := false
		g.eachProcess(dir, func(p []byte) bool { found = string(p) == want; return !found })
		if found {
			return []byte(unitOf(dir))
		}
	}
	g.survey(asked, true)
	g.mu.Lock()
	defer g.mu.Unlock()
	dir, ok := g.processes[pid]
	if !ok {
		return nil
	}
	if g.hints == nil || len(g.hints) >= mostHinted {
		g.hints = make(map[uint32][]string)
	}
	if hints := g.hints[uid]; !slices.Contains(hints, dir) {
		g.hints[uid] = append([]string{dir}, hints[:min(len(hints), mostHints-1)]...)
	}
	return []byte(unitOf(dir))
}

// survey sees to it that a walk has ended which began when asked others had begun already; if processes, one that listed
// them.
func (g *cgroups) survey(asked uint64, processes bool) {
	g.walking.Lock()
	defer g.walking.Unlock()
	g.mu.Lock()
	done := g.begun > asked && (!processes || g.listed > asked)
	g.mu.Unlock()
	if done {
		return
	}
	if wait := time.Until(g.rest); wait > 0 {
		<-time.NewTimer(wait).C
	}
	g.mu.Lock()
	g.begun++
	number := g.begun
	g.mu.Unlock()
	begin := time.Now()
	units, names, where := make(map[uint64][]byte), make(map[string][]byte), make(map[int]string)
	list := func(dir string) {
		g.eachProcess(dir, func(p []byte) bool {
			if pid, err := strconv.Atoi(string(p)); err == nil {
				where[pid] = dir
			}
			return len(where) < mostProcesses
		})
	}
	if processes {
		list("") // those of no cgroup
	}
	g.walk(func(dir string, id uint64) bool {
		name := unitOf(dir)
		if names[name] == nil {
			names[name] = []byte(name)
		}
		units[id] = names[name]
		if processes {
			list(dir)
		}
		return true
	})
	now := time.Now()
	g.rest = now.Add(restPerWalk * now.Sub(begin))
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, unit := range g.units {
		if len(units) >= mostUnits {
			break
		}
		units[id] = unit
	}
	g.units = units
	if processes {
		g.processes, g.listed = where, number
	}
}

// eachProcess calls visit with the numbers of the processes in a cgroup itself, until it returns false.
func (g *cgroups) eachProcess(dir string, visit func(pid []byte) bool) {
	f, err := os.Open(g.root + dir + "/cgroup.procs")
	if err != nil {
		return // gone meanwhile
	}
	defer func() { _ = f.Close() }()
	list, _ := io.ReadAll(io.LimitReader(f, mostList)) // what was read counts
	for line := range bytes.Lines(list) {
		if !visit(bytes.TrimSuffix(line, []byte("\n"))) {
			return
		}
	}
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
