package config

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// CheckFiles reports the files among paths, and the folders that lead to them,
// which somebody besides root and the process's own user may change: it belongs
// to somebody else, or everybody or a group may write to it. A group is allowed
// when it is the owner's alone: it has the same number and nobody else in it.
// Symbolic links are followed; who owns the link counts, and so do the folders
// of link and target. In a folder with the
// sticky bit others cannot replace a file, so it may be open to them, unless it
// is one of paths itself: then others could add to it. Paths that do not exist
// are left out.
func CheckFiles(paths ...string) Problems {
	var problems Problems
	seen := make(map[string]bool)
	check := func(name string, leads bool) {
		if !seen[name] {
			seen[name] = true
			if p, bad := changeable(name, leads); bad {
				problems = append(problems, p)
			}
		}
	}
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		check(path, false)
		seen[abs] = true
		ways := []string{abs}
		if target, err := filepath.EvalSymlinks(abs); err == nil && target != abs {
			ways = append(ways, target)
		}
		for _, way := range ways {
			for folder := filepath.Dir(way); ; folder = filepath.Dir(folder) {
				check(folder, true)
				if folder == filepath.Dir(folder) {
					break
				}
			}
		}
	}
	return problems
}

// changeable judges one file or folder. One that only leads to the file may be
// sticky.
func changeable(name string, leads bool) (Problem, bool) {
	info, err := os.Stat(name)
	if err != nil {
		return Problem{}, false // whoever opens it says so
	}
	uid, gid := owner(info)
	linkUID := uid
	if link, err := os.Lstat(name); err == nil {
		linkUID, _ = owner(link)
	}
	p := Problem{Origin: Origin{File: name}}
	mode := info.Mode()
	switch {
	case !trusted(uid):
		p.Fact = "belongs to " + userName(uid) + ", who may change it"
		p.Hint = "chown root " + name
	case !trusted(linkUID):
		p.Fact = "is a link of " + userName(linkUID) + ", who may change it"
		p.Hint = "chown -h root " + name
	case mode.Perm()&0o002 != 0 && !(leads && mode&fs.ModeSticky != 0):
		p.Fact = fmt.Sprintf("everybody may write to it (mode %04o)", mode.Perm())
		p.Hint = "chmod o-w " + name
	case mode.Perm()&0o020 != 0 && !alone(uid, gid) && !(leads && mode&fs.ModeSticky != 0):
		p.Fact = fmt.Sprintf("the group %s may write to it (mode %04o)", groupName(gid), mode.Perm())
		p.Hint = "chmod g-w " + name
	default:
		return p, false
	}
	return p, true
}

func owner(info fs.FileInfo) (uid, gid uint32) {
	st := info.Sys().(*syscall.Stat_t) // what os.Stat gives on every Unix
	return st.Uid, st.Gid
}

// alone reports whether the group gid is the user's own, with nobody else in it.
func alone(uid, gid uint32) bool {
	if uid != gid {
		return false
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(groups)) {
		// name:password:number:members
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 4 && f[2] == strconv.FormatUint(uint64(gid), 10) {
			return f[3] == "" || f[3] == f[0]
		}
	}
	return true // a number without a name has no members
}

// trusted reports whether what uid owns is as good as ours: root's, our own
// and, for root, what the service's user owns, since that user is who reads it.
func trusted(uid uint32) bool {
	own := os.Geteuid()
	if uid == 0 || int64(uid) == int64(own) {
		return true
	}
	if own != 0 {
		return false
	}
	service, err := user.Lookup("mtls-proxy")
	return err == nil && service.Uid == strconv.FormatUint(uint64(uid), 10)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return "the user " + u.Username
	}
	return "the user " + id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
