package listener

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func unixSpec(path string, mode os.FileMode) Spec {
	return Spec{Name: "http", Addresses: []string{"unix:" + path}, UnixMode: mode}
}

func TestUnixSocketReplacesOnlyWhatNobodyAnswersOn(t *testing.T) {
	for _, tt := range []struct {
		name string
		put  func(t *testing.T, path string)
		want string // "" when it is replaced
	}{
		{name: "nothing", put: func(*testing.T, string) {}},
		{name: "a stale socket", put: func(t *testing.T, path string) {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			ln.SetUnlinkOnClose(false)
			ln.Close()
		}},
		{name: "a live socket", want: "another process answers there: address already in use", put: func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		}},
		{name: "a live socket of datagrams", want: "cannot be told", put: func(t *testing.T, path string) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}},
		{name: "a file", want: "a file that is no socket is there; it is not touched", put: func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a link", want: "a file that is no socket is there", put: func(t *testing.T, path string) {
			if err := os.Symlink("/dev/null", path); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.sock")
			tt.put(t, path)
			s := NewSet(nil)
			c, err := s.Prepare([]Spec{unixSpec(path, 0)})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Prepare() = %v; want it to contain %s", err, tt.want)
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("what was there is gone: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Commit()
			defer s.Close()
			answers(t, s.Sockets()[0])
			if got := modeOf(t, path); got != DefaultUnixMode {
				t.Errorf("mode %v; want %v", got, DefaultUnixMode)
			}
		})
	}
}

// No test here runs beside another: the umask is the whole process's.
func TestUnixSocketIsNeverOpenToMoreThanItsMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "x.sock")
	var (
		wg   sync.WaitGroup
		done = make(chan struct{})
		seen = make(map[os.FileMode]bool)
	)
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil {
				seen[info.Mode().Perm()] = true
			}
		}
	})
	for range 300 {
		ln, f, err := bindUnix(path, permissions{mode: 0o620, gid: os.Getegid()})
		if err != nil {
			t.Fatal(err)
		}
		f.remove()
		ln.Close()
	}
	close(done)
	wg.Wait()
	for mode := range seen {
		if mode&^0o620 != 0 {
			t.Errorf("the socket had mode %v for a moment; want never more than 0620", mode)
		}
	}
}

func TestUnixSocketOutlivesUmask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	defer syscall.Umask(syscall.Umask(0o077))
	newSet(t, unixSpec(path, 0o666))
	if got := modeOf(t, path); got != 0o666 {
		t.Errorf("mode %v; want 0666 whatever the umask", got)
	}
}

func TestCloseRemovesThePathOnlyWhileItIsOurs(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	s := NewSet(nil)
	prepare(t, s, tcp("http", "unix:"+ours, "unix:"+theirs)).Commit()
	if err := os.Remove(theirs); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(ours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("our path after Close: %v; want none", err)
	}
	if c, err := net.Dial("unix", theirs); err != nil {
		t.Errorf("the other process's socket after our Close: %v", err)
	} else {
		c.Close()
	}
}

func TestRemovedPathComesBackWithTheNextChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	s := newSet(t, unixSpec(path, 0))
	before := s.Sockets()[0]
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now, left := prepare(t, s, unixSpec(path, 0)).Commit()
	if len(left) != 1 || left[0] != before {
		t.Fatalf("left = %v; want the socket that nobody can reach", left)
	}
	if err := before.Close(); err != nil {
		t.Error(err)
	}
	answers(t, now["http"][0])
}

func TestModeChangesInPlaceAndBackOnAbort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	s := newSet(t, unixSpec(path, 0o600))
	sock := s.Sockets()[0]
	c := prepare(t, s, unixSpec(path, 0o666))
	if got := modeOf(t, path); got != 0o666 {
		t.Errorf("mode %v; want 0666", got)
	}
	c.Abort()
	if got := modeOf(t, path); got != 0o600 {
		t.Errorf("mode %v after Abort; want 0600", got)
	}
	now, left := prepare(t, s, unixSpec(path, 0o640)).Commit()
	if now["http"][0] != sock || len(left) > 0 {
		t.Error("a change of the mode replaced the socket")
	}
	if got := modeOf(t, path); got != 0o640 {
		t.Errorf("mode %v; want 0640", got)
	}
}

// otherGroup is a group that this process may give files to, beside its own if there is any.
func otherGroup(t *testing.T) int {
	t.Helper()
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		return 1
	}
	return slices.Max(append(groups, os.Getegid()))
}

func TestUnixSocketGoesToItsGroup(t *testing.T) {
	gid := otherGroup(t)
	path := filepath.Join(t.TempDir(), "x.sock")
	group := func() int {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Sys().(*syscall.Stat_t).Gid)
	}
	spec := unixSpec(path, 0o660)
	spec.UnixGroup = strconv.Itoa(gid)
	s := newSet(t, spec)
	if got := group(); got != gid {
		t.Errorf("group %d; want %d", got, gid)
	}
	prepare(t, s, unixSpec(path, 0o660)).Commit()
	if got := group(); got != os.Getegid() {
		t.Errorf("group %d once none is configured; want %d as before", got, os.Getegid())
	}
}

// In a folder with the set-group-ID bit, the kernel gives a new file the folder's group.
func TestUnixSocketHasOurGroupWhateverThatOfItsFolder(t *testing.T) {
	other := otherGroup(t)
	folder := t.TempDir()
	if err := errors.Join(os.Chown(folder, -1, other), os.Chmod(folder, 0o750|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "x.sock")
	newSet(t, unixSpec(path, 0))
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := int(info.Sys().(*syscall.Stat_t).Gid); got != os.Getegid() {
		t.Errorf("group %d; want our own, %d", got, os.Getegid())
	}
}
