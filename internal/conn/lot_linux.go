package conn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Lot watches sockets that nobody reads from, with one goroutine for all of them: what is parked there costs no stack.
//
// It is an epoll set of its own that lies in the runtime's, so waiting for it occupies no thread.
type Lot struct {
	file *os.File
	raw  syscall.RawConn
	set  int
	done chan struct{} // closed once nobody is called any more

	mu    sync.Mutex // guards spots
	spots map[int32]func()
}

// NewLot returns a Lot that watches nothing yet. The caller closes it.
func NewLot() (*Lot, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(set, true); err != nil { // or the runtime would not poll it
		_ = unix.Close(set)
		return nil, fmt.Errorf("epoll set: %w", err)
	}
	file := os.NewFile(uintptr(set), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	l := &Lot{file: file, raw: raw, set: set, done: make(chan struct{}), spots: make(map[int32]func())}
	go l.watch()
	return l, nil
}

// Park calls wake once, from a goroutine of the Lot's, when there is something to read from s: at once, if there is
// already. wake must not wait. Nobody reads from s until then. Without Leave or an event, s may still be closed.
func (l *Lot) Park(s *Socket, wake func()) error {
	if s.fd == nil {
		return fmt.Errorf("%T has no descriptor", s.net)
	}
	var failed error
	err := s.fd.Control(func(fd uintptr) {
		l.mu.Lock()
		l.spots[int32(fd)] = wake
		l.mu.Unlock()
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
		how := unix.EPOLL_CTL_ADD
		if s.parked {
			how = unix.EPOLL_CTL_MOD
		}
		failed = epollControl(l.set, how, fd, &event)
		if failed != nil {
			l.leave(int32(fd))
			return
		}
		s.parked = true
	})
	if err == nil {
		err = failed
	}
	return err
}

// Leave takes s out. wake may be called at the same moment all the same.
func (l *Lot) Leave(s *Socket) {
	if s.fd != nil {
		_ = s.fd.Control(func(fd uintptr) { l.leave(int32(fd)) }) // a closed one has left already
	}
}

func (l *Lot) leave(fd int32) (wake func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wake = l.spots[fd]
	delete(l.spots, fd)
	return wake
}

// Len is how many sockets are watched.
func (l *Lot) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.spots)
}

// Close stops watching and waits until nobody is being called.
func (l *Lot) Close() error {
	err := l.file.Close()
	<-l.done
	return err
}

func (l *Lot) watch() {
	defer close(l.done)
	var events [64]unix.EpollEvent
	// The error is that of Close.
	_ = l.raw.Read(func(uintptr) bool {
		for {
			n, err := epollNow(l.set, events[:])
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return true
			case n == 0:
				return false
			}
			for i := range max(n, 0) {
				if wake := l.leave(events[i].Fd); wake != nil {
					wake()
				}
			}
			if 0 < n && n < len(events) {
				return false // that was all; what comes from now on is announced
			}
		}
	})
}
