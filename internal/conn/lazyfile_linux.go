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
// to wait for it. Whoever is done before that spares himself a tenth of what a connection costs that serves one request.
//
// It is a syscall.RawConn, and its errors are those of an os.File. It has to be closed: nothing else does so.
type lazyFile struct {
	name string
	file atomic.Pointer[polledFile] // nil until somebody waits

	closed atomic.Bool // set under mu

	mu    sync.Mutex // guards what follows
	fd    uintptr    // belongs to file once there is one
	users int        // whoever uses fd, having come before there was a file
	read  time.Time  // deadlines, likewise; zero for none
	write time.Time
}

type polledFile struct {
	*os.File
	raw syscall.RawConn
}

// Control implements syscall.RawConn.
func (l *lazyFile) Control(f func(fd uintptr)) error {
	if p := l.file.Load(); p != nil {
		return l.closedError(p.raw.Control(f))
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
	p, err := l.orWait(f, &l.read)
	if p == nil {
		return err
	}
	return l.closedError(p.raw.Read(f))
}

// Write implements syscall.RawConn.
func (l *lazyFile) Write(f func(fd uintptr) (done bool)) error {
	p, err := l.orWait(f, &l.write)
	if p == nil {
		return err
	}
	return l.closedError(p.raw.Write(f))
}

// orWait calls f if there is no file yet. It returns the file to wait with, or nil when there is nothing to wait for.
func (l *lazyFile) orWait(f func(fd uintptr) (done bool), limit *time.Time) (*polledFile, error) {
	if p := l.file.Load(); p != nil {
		return p, nil
	}
	if err := l.hold(limit); err != nil {
		return nil, err
	}
	done := f(l.fd)
	l.release()
	if done {
		return nil, nil
	}
	return l.poll() // what is announced from now on, f looks for once more
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
func (l *lazyFile) poll() (*polledFile, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return nil, os.ErrClosed
	}
	if p := l.file.Load(); p != nil {
		return p, nil
	}
	file := os.NewFile(l.fd, l.name)
	raw, err := file.SyscallConn()
	if err != nil {
		l.closed.Store(true)
		return nil, errors.Join(err, file.Close())
	}
	if !l.read.IsZero() {
		_ = file.SetReadDeadline(l.read)
	}
	if !l.write.IsZero() {
		_ = file.SetWriteDeadline(l.write)
	}
	p := &polledFile{file, raw}
	l.file.Store(p)
	return p, nil
}

// Close ends all waits. The descriptor is closed as soon as nobody uses it.
func (l *lazyFile) Close() error {
	l.mu.Lock()
	if l.closed.Swap(true) {
		l.mu.Unlock()
		return os.ErrClosed
	}
	used, p := l.users > 0, l.file.Load()
	l.mu.Unlock()
	if !used {
		return l.shut()
	}
	if p != nil {
		_ = p.SetDeadline(past())
	}
	return nil // release shuts it
}

// closeUnpolled is Close for what never became a file, without telling the runtime. False: it did, or somebody uses it.
func (l *lazyFile) closeUnpolled() bool {
	l.mu.Lock()
	unpolled := l.file.Load() == nil && l.users == 0 && !l.closed.Swap(true)
	l.mu.Unlock()
	if unpolled {
		_ = closeNow(l.fd)
	}
	return unpolled
}

func (l *lazyFile) shut() error {
	if p := l.file.Load(); p != nil {
		return p.Close()
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
	if p := l.file.Load(); p != nil {
		return set(p.File, t)
	}
	*limit = t
	return nil
}
