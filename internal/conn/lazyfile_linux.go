package conn

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lazyFile is a non-blocking descriptor that becomes an os.File, and thereby known to the runtime's poller, when somebody has
// to wait for it. Whoever is done before that spares himself up to a tenth of what a connection costs that serves one request.
//
// It is a syscall.RawConn, and its errors are those of an os.File. It has to be closed: nothing else does so.
type lazyFile struct {
	polled atomic.Bool     // there is a file: file and raw are set, and stay
	closed atomic.Bool     // set under mu
	raw    syscall.RawConn // of file
	file   *os.File
	fd     uintptr // belongs to file once there is one
	name   string

	mu    sync.Mutex // guards what follows, and whether there is a file
	users int        // whoever uses fd, having come before there was one
	read  time.Time  // deadlines, likewise; zero for none
	write time.Time
}

// Control implements syscall.RawConn.
func (l *lazyFile) Control(f func(fd uintptr)) error {
	if l.polled.Load() {
		return l.closedError(l.raw.Control(f))
	}
	if err := l.hold(nil); err != nil {
		return err
	}
	f(l.fd)
	l.release()
	return nil
}

// Read implements syscall.RawConn.
func (l *lazyFile) Read(f func(fd uintptr) (done bool)) error {
	if !l.polled.Load() {
		if done, err := l.try(f, &l.read); done || err != nil {
			return err
		}
	}
	return l.closedError(l.raw.Read(f))
}

// Write implements syscall.RawConn.
func (l *lazyFile) Write(f func(fd uintptr) (done bool)) error {
	if !l.polled.Load() {
		if done, err := l.try(f, &l.write); done || err != nil {
			return err
		}
	}
	return l.closedError(l.raw.Write(f))
}

// ofPoller implements lazyConn.
func (l *lazyFile) ofPoller() (syscall.RawConn, bool) {
	if !l.polled.Load() {
		return nil, false
	}
	return l.raw, true
}

// try calls f while there is no file. When that is not done, there is one, and f is to look again: what is there already is not
// announced.
func (l *lazyFile) try(f func(fd uintptr) (done bool), limit *time.Time) (done bool, _ error) {
	if err := l.hold(limit); err != nil {
		return false, err
	}
	done = f(l.fd)
	l.release()
	if done {
		return true, nil
	}
	return false, l.poll()
}

// closedError says that it was Close that ended a wait, whatever the runtime says.
func (l *lazyFile) closedError(err error) error {
	if err != nil && l.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// hold keeps fd from being closed until release, unless limit is over.
func (l *lazyFile) hold(limit *time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed.Load():
		return os.ErrClosed
	case limit != nil && !limit.IsZero() && !time.Now().Before(*limit):
		return os.ErrDeadlineExceeded
	}
	l.users++
	return nil
}

func (l *lazyFile) release() {
	l.mu.Lock()
	l.users--
	last := l.users == 0 && l.closed.Load()
	l.mu.Unlock()
	if last {
		_ = l.shut()
	}
}

// poll makes it a file, if it is none yet.
func (l *lazyFile) poll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed.Load():
		return os.ErrClosed
	case l.polled.Load():
		return nil
	}
	var err error
	l.file = os.NewFile(l.fd, l.name)
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return err // that there is no file
	}
	if !l.read.IsZero() {
		_ = l.file.SetReadDeadline(l.read)
	}
	if !l.write.IsZero() {
		_ = l.file.SetWriteDeadline(l.write)
	}
	l.polled.Store(true)
	return nil
}

// Close ends all waits. The descriptor is closed as soon as nobody uses it.
func (l *lazyFile) Close() error {
	l.mu.Lock()
	if l.closed.Swap(true) {
		l.mu.Unlock()
		return os.ErrClosed
	}
	used := l.users > 0
	l.mu.Unlock()
	if !used {
		return l.shut()
	}
	if l.polled.Load() {
		_ = l.file.SetDeadline(past())
	}
	return nil // release shuts it
}

// closeUnpolled is Close for what never became a file, without telling the runtime. False: it did, or somebody uses it.
func (l *lazyFile) closeUnpolled() bool {
	l.mu.Lock()
	unpolled := !l.polled.Load() && l.users == 0 && !l.closed.Swap(true)
	l.mu.Unlock()
	if unpolled {
		_ = closeNow(l.fd)
	}
	return unpolled
}

func (l *lazyFile) shut() error {
	if l.polled.Load() {
		return l.file.Close()
	}
	return closeNow(l.fd)
}

// SetDeadline is that of an os.File.
func (l *lazyFile) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// SetReadDeadline is that of an os.File.
func (l *lazyFile) SetReadDeadline(t time.Time) error {
	return l.setLimit(&l.read, t, (*os.File).SetReadDeadline)
}

// SetWriteDeadline is that of an os.File.
func (l *lazyFile) SetWriteDeadline(t time.Time) error {
	return l.setLimit(&l.write, t, (*os.File).SetWriteDeadline)
}

func (l *lazyFile) setLimit(limit *time.Time, t time.Time, set func(*os.File, time.Time) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return os.ErrClosed
	}
	if l.polled.Load() {
		return set(l.file, t)
	}
	*limit = t
	return nil
}
