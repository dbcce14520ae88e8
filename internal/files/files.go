// Package files reads the files that decide what the proxy trusts and which identity it presents, and tells which users may change them.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Problem is what is wrong with a file, or with a folder or link on the way to it.
type Problem struct {
	Path string
	Fact string
	Hint string // what to do; may be empty
	Err  error  // the cause, when there is one beyond Fact
}

func (p *Problem) Error() string {
	s := p.Path + ": " + p.Fact
	if p.Err != nil {
		s += ": " + p.Err.Error()
	}
	if p.Hint != "" {
		s += "; " + p.Hint
	}
	return Visible(s)
}

func (p *Problem) Unwrap() error { return p.Err }

// File is a file that was read.
type File struct {
	Data []byte
	Mode fs.FileMode

	// Problems name the users besides root and our own that may change the file, or exchange it for another.
	Problems []*Problem
}

// Public reports whether all users of this host may read the file, as far as its own mode tells.
func (f *File) Public() bool { return f.Mode.Perm()&0o004 != 0 }

// Reader reads files and remembers the Problems that it has returned, so that a folder in which several lie is reported once. The zero
// Reader is ready. It is for one goroutine.
type Reader struct {
	reported map[string]bool
	trust    *users
}

// Read returns the file at path, or a *Problem that says why it cannot be read: also if it is a folder, a device or a pipe, or larger than
// most bytes. It walks there as the kernel does, one name after the other, and follows links; what it has judged on the way, by
// descriptors, is what it opens. It waits for nothing but the file system.
func (r *Reader) Read(path string, most int64) (*File, error) {
	w, err := r.walk(path)
	if err != nil {
		return nil, err
	}
	defer w.close()
	switch w.last.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return nil, &Problem{Path: path, Fact: "is a folder"}
	default:
		return nil, &Problem{Path: path, Fact: "is not a regular file"}
	}
	f, err := w.open(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, unreadable(path, cause(err))
	}
	if int64(len(data)) > most {
		return nil, &Problem{Path: path, Fact: "is larger than " + size(most)}
	}
	return &File{Data: data, Mode: fs.FileMode(w.last.Mode & 0o7777), Problems: w.problems}, nil
}

// List returns the names in the folder at path, sorted. problems name the users besides root and our own that may change which they are. The error is a
// *Problem; errors.Is tells fs.ErrNotExist.
func (r *Reader) List(path string) (names []string, problems []*Problem, err error) {
	w, err := r.walk(path)
	if err != nil {
		return nil, nil, err
	}
	defer w.close()
	if w.last.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, nil, &Problem{Path: path, Fact: "is not a folder"}
	}
	f, err := w.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if names, err = f.Readdirnames(-1); err != nil {
		return nil, nil, unreadable(path, cause(err))
	}
	slices.Sort(names)
	return names, w.problems, nil
}

// Masked reports whether path is a link to /dev/null, by which an administrator says that there is to be no such file.
func Masked(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && target == os.DevNull
}

// Visible is text with the name of a file in it, for a terminal: what is not printable is escaped, as names may have any byte but a slash and
// zero.
func Visible(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			quoted := strconv.Quote(text[:n])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

func size(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func unreadable(path string, err error) *Problem {
	return &Problem{Path: path, Fact: "cannot be read", Err: err}
}

// cause is err without the name of the file, which is said already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// maxLinks is how many links a path may lead through, as Linux has it.
const maxLinks = 40

// walk is the way to a file. It holds descriptors of the last folder and of what was found there.
type walk struct {
	r        *Reader
	path     string // as it was given
	home     string // the folder that it is named in
	folder   int
	found    int // O_PATH; -1: folder itself
	name     string
	last     unix.Stat_t // of what was found
	problems []*Problem
}

func (w *walk) close() {
	_ = unix.Close(w.folder)
	if w.found >= 0 {
		_ = unix.Close(w.found)
	}
}

// walk goes to path and judges everything on the way.
func (r *Reader) walk(path string) (_ *walk, err error) {
	abs := path
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return nil, &Problem{Path: path, Fact: "cannot be found", Err: err}
		}
		abs = dir + "/" + path // filepath.Join would resolve "..", see split
	}
	w := &walk{r: r, path: path, home: filepath.Dir(abs), folder: -1, found: -1}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.root(); err != nil {
		return nil, err
	}
	at, rest := "/", split(abs)
	w.judge(at, &w.last, len(rest) == 0)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, name)
		found, st, err := w.look(name)
		if err != nil {
			return nil, unreadable(path, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, err := readLink(found)
			_ = unix.Close(found)
			if err != nil {
				return nil, unreadable(path, err)
			}
			if links++; links > maxLinks {
				return nil, &Problem{Path: path, Fact: "leads through too many symbolic links"}
			}
			w.judgeLink(next, &st) // in a sticky folder, a link's owner decides where it leads
			if filepath.IsAbs(target) {
				if err := w.root(); err != nil {
					return nil, err
				}
				at = "/"
			}
			rest = append(split(target), rest...)
			continue
		}
		w.judge(next, &st, len(rest) == 0)
		w.last, w.name, at = st, name, next
		if len(rest) == 0 {
			w.found = found
			return w, nil
		}
		_ = unix.Close(w.folder)
		w.folder = found
	}
	w.name = "." // it led to a folder that was walked through, such as the root
	return w, nil
}

// root goes to the root.
func (w *walk) root() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Fstat(fd, &w.last)
	}
	if err != nil {
		return unreadable(w.path, err)
	}
	if w.folder >= 0 {
		_ = unix.Close(w.folder)
	}
	w.folder = fd
	return nil
}

// look finds name in the folder, and does not follow it.
func (w *walk) look(name string) (fd int, st unix.Stat_t, err error) {
	fd, err = retry(func() (int, error) {
		return unix.Openat(w.folder, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

func readLink(fd int) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	return string(buf[:max(n, 0)]), err
}

// open opens what was found, and nothing that has taken its place since.
func (w *walk) open(flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(w.folder, w.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, unreadable(w.path, err)
	}
	f := os.NewFile(uintptr(fd), w.path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != w.last.Dev || st.Ino != w.last.Ino {
		_ = f.Close()
		return nil, &Problem{Path: w.path, Fact: "changes while it is read", Hint: "try again when that is over"}
	}
	w.last = st
	return f, nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// split keeps "..", which after a link is not what filepath.Clean takes it for.
func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
}
