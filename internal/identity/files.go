package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// serviceUser is the account that the packaged unit runs as. Its files are fine
// for root too, so that root can check the service's configuration.
const serviceUser = "mtls-proxy"

// CheckFiles returns a Problem for each of the files, and for each folder on
// the way to it from the root, that others may write to: whoever can replace a
// file decides what we trust and whom we pose as. Symbolic links are followed,
// and the folders that they lead through count as well.
//
// Files and folders must belong to root or to the user we run as, and neither
// their group nor everybody may write to them. Two things are allowed: a
// group that is the owner's alone (same number as the user, no other member in
// /etc/group), and folders with the sticky bit such as /tmp, where nobody but
// the owner can replace what lies directly in them. Access lists need no look
// of their own: the mode's group bits are the most that they can grant.
func CheckFiles(paths ...string) []error {
	c := newChecker()
	for _, p := range paths {
		c.check(p)
	}
	return c.problems
}

// CheckKeys is CheckFiles for files that hold a private key or another secret:
// these may not be readable by everybody either. A group may read them.
func CheckKeys(paths ...string) []error {
	c := newChecker()
	for _, p := range paths {
		if info := c.check(p); info != nil && info.Mode().Perm()&0o004 != 0 {
			c.problems = append(c.problems, &Problem{
				File: p,
				Fact: fmt.Sprintf("everybody on this host may read the private key (mode %04o)", info.Mode().Perm()),
				Hint: "take that away: chmod o-rwx " + p,
			})
		}
	}
	return c.problems
}

// checkModes is what Load asks of a source's files. certPEM is the content of
// the certificate's file, which may hold the key too.
func checkModes(src Source, certPEM []byte) error {
	if bytes.Contains(certPEM, []byte("PRIVATE KEY-----")) || src.Certificate == src.Key {
		return errors.Join(CheckKeys(slices.Compact([]string{src.Certificate, src.Key})...)...)
	}
	return errors.Join(append(CheckFiles(src.Certificate), CheckKeys(src.Key)...)...)
}

// checker remembers what it has seen, so that a folder is reported once.
type checker struct {
	uid      uint32
	seen     map[string]bool
	problems []error
}

func newChecker() *checker { return &checker{uid: uint32(os.Geteuid()), seen: map[string]bool{}} }

// trusts reports whether files of that user are fine. The service's account is looked up for files that are neither root's nor
// ours: that reads a file, and there may be thousands to check.
func (c *checker) trusts(uid uint32) bool {
	if uid == 0 || uid == c.uid {
		return true
	}
	if c.uid != 0 {
		return false
	}
	u, err := user.Lookup(serviceUser)
	return err == nil && u.Uid == strconv.FormatUint(uint64(uid), 10)
}

// check walks to path as the kernel does, one name after the other, and looks
// at each folder on the way. It returns the file's own Info, or nil.
func (c *checker) check(path string) fs.FileInfo {
	abs := path
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			c.problems = append(c.problems, &Problem{File: path, Fact: "cannot be found", Err: err})
			return nil
		}
		abs = dir + "/" + path // filepath.Join would resolve "..", see splitPath
	}
	const maxLinks = 40 // as Linux has it
	links := 0
	at := "/"
	rest := splitPath(abs)
	c.look(at)
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		if err != nil {
			c.problems = append(c.problems, unreadable(path, err))
			return nil
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if links++; links > maxLinks {
				c.problems = append(c.problems, &Problem{File: path, Fact: "leads through too many symbolic links"})
				return nil
			}
			target, err := os.Readlink(next)
			if err != nil {
				c.problems = append(c.problems, unreadable(path, err))
				return nil
			}
			c.owner(next, info) // in a sticky folder, a link's owner decides where it leads
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(splitPath(target), rest...)
			continue
		}
		at = next
		c.look(at)
		if len(rest) == 0 {
			return info
		}
	}
	return nil
}

// splitPath keeps "..", which after a link is not what filepath.Clean takes it for.
func splitPath(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
}

func (c *checker) look(path string) {
	if c.seen[path] {
		return
	}
	c.seen[path] = true
	info, err := os.Lstat(path)
	if err != nil {
		c.problems = append(c.problems, unreadable(path, err))
		return
	}
	if !c.owner(path, info) {
		return
	}
	if info.IsDir() && info.Mode()&fs.ModeSticky != 0 {
		return
	}
	what := "file"
	if info.IsDir() {
		what = "folder"
	}
	mode := info.Mode().Perm()
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case mode&0o002 != 0:
		c.problems = append(c.problems, &Problem{
			File: path,
			Fact: fmt.Sprintf("everybody on this host may write to this %s (mode %04o)", what, mode),
			Hint: "take that away: chmod go-w " + path,
		})
	case mode&0o020 != 0 && !private(st.Uid, st.Gid):
		c.problems = append(c.problems, &Problem{
			File: path,
			Fact: fmt.Sprintf("group %s may write to this %s (mode %04o)", groupName(st.Gid), what, mode),
			Hint: "take that away: chmod g-w " + path,
		})
	}
}

// owner reports whether path belongs to somebody who may change it.
func (c *checker) owner(path string, info fs.FileInfo) bool {
	st := info.Sys().(*syscall.Stat_t)
	if c.trusts(st.Uid) {
		return true
	}
	name := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	c.problems = append(c.problems, &Problem{
		File: path,
		Fact: fmt.Sprintf("belongs to user %s, who may change it", name),
		Hint: "give it to root: chown root " + path,
	})
	return false
}

// private reports whether gid is uid's own group, with nobody else in it.
func private(uid, gid uint32) bool {
	if uid != gid {
		return false
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(groups)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 4 && f[2] == strconv.FormatUint(uint64(gid), 10) {
			return f[3] == "" || f[3] == f[0]
		}
	}
	return false
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
