package caller

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// tree makes a folder that looks like a tree of cgroups: path -> processes.
func tree(t *testing.T, processes map[string]string) *cgroups {
	t.Helper()
	root := t.TempDir()
	for path, pids := range processes {
		if err := os.MkdirAll(root+path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path+"/cgroup.procs", []byte(pids), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &cgroups{root: root}
}

func idOf(t *testing.T, g *cgroups, path string) uint64 {
	t.Helper()
	info, err := os.Stat(g.root + path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestUnitByTheNumberOfACgroup(t *testing.T) {
	g := tree(t, map[string]string{"/system.slice/a.service/sub": "", "/system.slice/b.service": "", "/odd": ""})
	for path, want := range map[string]string{
		"/system.slice/a.service": "a.service", "/system.slice/a.service/sub": "a.service", "/system.slice/b.service": "b.service",
		"/odd": "", "/system.slice": "", "": "",
	} {
		if got := string(g.unit(idOf(t, g, path))); got != want {
			t.Errorf("unit of %q = %q, want %q", path, got, want)
		}
	}
	if err := os.Mkdir(g.root+"/system.slice/new.service", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := string(g.unit(idOf(t, g, "/system.slice/new.service"))); got != "new.service" {
		t.Errorf("unit of a new cgroup = %q", got)
	}
	if got := g.unit(1 << 60); len(got) != 0 {
		t.Errorf("unit of a cgroup that is gone = %q, want none", got)
	}
}

func TestCgroupsThatAreRememberedAreBounded(t *testing.T) {
	g := tree(t, map[string]string{"/a.service": ""})
	g.unit(1 << 60)
	for id := range uint64(mostUnits) {
		g.units[1<<62+id] = nil
	}
	for id := range uint64(3) {
		g.unit(1<<61 + id)
		if n := len(g.units); n > mostUnits {
			t.Fatalf("%d cgroups are remembered, want %d at most", n, mostUnits)
		}
	}
	if got := string(g.unit(idOf(t, g, "/a.service"))); got != "a.service" {
		t.Errorf("unit() = %q after all that", got)
	}
}

func TestAWalkServesAllWhoAskedBeforeIt(t *testing.T) {
	g := tree(t, map[string]string{"/a.service": "1\n"})
	for _, s := range []struct {
		asked     uint64
		processes bool
		want      uint64 // walks, thereafter
	}{{0, false, 1}, {0, false, 1}, {1, false, 2}, {1, true, 3}, {2, true, 3}, {1, false, 3}, {3, true, 4}} {
		if g.survey(s.asked, s.processes); g.begun != s.want {
			t.Fatalf("%d walks after %+v", g.begun, s)
		}
	}
	for range 3 {
		g.unit(idOf(t, g, "/a.service"))
	}
	if g.begun != 4 {
		t.Errorf("%d walks, want none for what is known", g.begun)
	}
}

func TestWalksRest(t *testing.T) {
	g := tree(t, nil)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		g.rest = begin.Add(time.Second)
		g.unit(1)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("the next walk began after %v, want 1s", took)
		}
	})
	if g.unit(2); !g.rest.After(time.Now().Add(-time.Hour)) {
		t.Error("a walk asked for no rest")
	}
}

func TestUnitOfAProcessByTheListsOfCgroups(t *testing.T) {
	g := tree(t, map[string]string{
		"/system.slice/a.service": "12\n123\n", "/system.slice/b.service": "7\n", "/b.slice": "8\n", "": "9\n",
	})
	for pid, want := range map[int]string{12: "a.service", 123: "a.service", 7: "b.service", 8: "", 9: "", 3: "", 2: ""} {
		for range 2 { // found, and remembered
			if got := string(g.unitOfProcess(pid, 1000)); got != want {
				t.Errorf("unit of process %d = %q, want %q", pid, got, want)
			}
		}
	}
	if !slices.Contains(g.hints[1000], "") {
		t.Errorf("processes of no unit are not remembered: %q", g.hints[1000])
	}
	// What is remembered is where to look first, not what is so.
	if err := os.WriteFile(g.root+"/system.slice/a.service/cgroup.procs", []byte("7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.root+"/system.slice/b.service/cgroup.procs", []byte("12\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]string{12: "b.service", 7: "a.service", 123: ""} {
		if got := string(g.unitOfProcess(pid, 1000)); got != want {
			t.Errorf("unit of process %d, which moved = %q, want %q", pid, got, want)
		}
	}
}

func TestHintsAreBounded(t *testing.T) {
	cgroups := make(map[string]string)
	for i := range 3 * mostHints {
		cgroups[fmt.Sprintf("/u%d.service", i)] = strconv.Itoa(100+i) + "\n"
	}
	g := tree(t, cgroups)
	for i := range 3 * mostHints {
		if got, want := string(g.unitOfProcess(100+i, 1)), fmt.Sprintf("u%d.service", i); got != want {
			t.Errorf("unit of process %d = %q, want %q", 100+i, got, want)
		}
	}
	if n := len(g.hints[1]); n != mostHints {
		t.Errorf("%d hints for a user, want %d", n, mostHints)
	}
	for uid := range uint32(mostHinted + 2) {
		g.unitOfProcess(100, uid)
	}
	if n := len(g.hints); n > mostHinted {
		t.Errorf("hints for %d users, want %d at most", n, mostHinted)
	}
}

// A caller that is a process of its own in a unit's cgroup.
func TestUnitOfACaller(t *testing.T) {
	dir := cgroup(t, "caller-test.slice", "billing.service")
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			ln, at := listen(t, p.network, p.address, p.dial)
			start(t, dir, p.dial, at)
			ours := accept(t, ln)
			for _, bySearch := range []bool{false, true} {
				l := newLookup(t)
				l.cgroups.bySearch = bySearch
				if who := of(t, l, ours, Unit); string(who.Unit) != "billing.service" {
					t.Errorf("Of() = %+v, want unit billing.service (by search: %v)", who, bySearch)
				}
			}
		})
	}
}

// A process that has left its connection to another.
func TestUnitOfAProcessThatEndedIsUnknown(t *testing.T) {
	dir := cgroup(t, "caller-test.slice", "gone.service")
	for _, bySearch := range []bool{false, true} {
		ln, at := listen(t, "unix", "", "unix")
		pid, end := start(t, dir, "unix", at)
		ours := accept(t, ln)
		l := newLookup(t)
		l.cgroups.bySearch = bySearch
		if who := of(t, l, ours, Unit); string(who.Unit) != "gone.service" {
			t.Fatalf("Of() = %+v, want unit gone.service", who)
		}
		end()
		// As if another process had got its number.
		l.cgroups.root = tree(t, map[string]string{"/another.service": strconv.Itoa(pid) + "\n"}).root
		if who := of(t, l, ours, User|Unit); who.Has() != User {
			t.Errorf("Of() = %+v, want the user alone", who)
		}
	}
}

// cgroup makes one that ends with the test.
func cgroup(t *testing.T, names ...string) string {
	t.Helper()
	dir := cgroupRoot()
	if dir == "" {
		t.Skip("no cgroups of version 2 here")
	}
	for _, name := range names {
		dir = filepath.Join(dir, name)
		switch err := os.Mkdir(dir, 0o755); {
		case os.IsExist(err):
		case err != nil:
			t.Skip(err) // not root, or read only
		default:
			made := dir
			t.Cleanup(func() { _ = os.Remove(made) })
		}
	}
	return dir
}

const dialEnv = "CALLER_TEST_DIAL"

// start runs a caller in a cgroup. It has connected when accept returns; end ends it.
func start(t *testing.T, dir, network, address string) (pid int, end func()) {
	t.Helper()
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBeACaller$")
	cmd.Env = append(os.Environ(), dialEnv+"="+network+" "+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = in.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// TestBeACaller is what start runs.
func TestBeACaller(t *testing.T) {
	var network, address string
	if _, err := fmt.Sscan(os.Getenv(dialEnv), &network, &address); err != nil {
		t.Skip("nobody asks for it")
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}
