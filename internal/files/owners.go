package files

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Files and folders must belong to root or to the user we run as, and neither their group nor other users may write to them. Two things are
// allowed: a group that is the owner's alone (same number as the user, no other member in /etc/group), and folders on the way with the
// sticky bit such as /tmp, where only the owner can replace what lies directly in them. Access lists need no look of their own:
// the mode's group bits are the most that they can grant.

// serviceUser is the account that the packaged unit runs as. Its files are fine for root too, so that root can check the service's
// configuration.
const serviceUser = "mtls-proxy"

// users are those that files may belong to.
type users struct {
	own     uint32
	service string // the number of serviceUser; "": not known, or we are not root
}

func newUsers() *users {
	u := &users{own: uint32(os.Geteuid())}
	if u.own == 0 {
		if s, err := user.Lookup(serviceUser); err == nil {
			u.service = s.Uid
		}
	}
	return u
}

// trusted reports whether what uid owns is as good as ours.
func (r *Reader) trusted(uid uint32) bool {
	if uid == 0 {
		return true
	}
	if r.trust == nil {
		r.trust = newUsers() // it reads a file, and there may be thousands to check
	}
	return uid == r.trust.own || strconv.FormatUint(uint64(uid), 10) == r.trust.service
}

// report adds a Problem unless it was returned before.
func (w *walk) report(at, fact, hint string) {
	if w.r.reported[at+"\x00"+fact] {
		return
	}
	if w.r.reported == nil {
		w.r.reported = make(map[string]bool)
	}
	w.r.reported[at+"\x00"+fact] = true
	if at != w.home && !strings.HasPrefix(w.home+"/", at+"/") && !strings.HasPrefix(at, strings.TrimSuffix(w.home, "/")+"/") {
		hint = "put a file that only root may change in the place of the link " + w.path // what it leads to may belong to another package
	}
	w.problems = append(w.problems, &Problem{Path: at, Fact: fact, Hint: hint})
}

// judgeLink reports a link that another user may change.
func (w *walk) judgeLink(at string, st *unix.Stat_t) {
	if !w.r.trusted(st.Uid) {
		w.report(at, "is a link of "+userName(st.Uid)+", who may change it", "chown -h root "+at)
	}
}

// judge reports a file or folder that other users may change. last means that it is the one to read, not a folder on the way.
func (w *walk) judge(at string, st *unix.Stat_t, last bool) {
	mode := st.Mode & 0o7777
	sticky := !last && st.Mode&unix.S_ISVTX != 0
	switch {
	case !w.r.trusted(st.Uid):
		w.report(at, "belongs to "+userName(st.Uid)+", who may change it", "chown root "+at)
	case sticky:
	case mode&0o002 != 0:
		w.report(at, fmt.Sprintf("everybody may write to it (mode %04o)", mode&0o777), "chmod o-w "+at)
	case mode&0o020 != 0 && !alone(st.Uid, st.Gid):
		w.report(at, fmt.Sprintf("the group %s may write to it (mode %04o)", groupName(st.Gid), mode&0o777), "chmod g-w "+at)
	}
}

// alone reports whether the group gid is the user's own, with no other member.
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
