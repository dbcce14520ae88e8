package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const (
	// sendTimeout bounds one message. The socket's queue is full only while
	// the service manager is stuck, and then it must not hold up a drain.
	sendTimeout = 2 * time.Second

	// maxStatusBytes keeps STATUS= readable on one line of `systemctl status`.
	maxStatusBytes = 1024
)

// Notify tells the service manager about our life, in an order that it
// understands whoever calls: READY=1 follows every RELOADING=1, and once
// STOPPING=1 was sent only the status, requests for time and connections to
// keep still go out.
//
// Its methods may be called at any time by any goroutine. Each waits at most
// two seconds for each message that it sends. Errors are for the log, with the
// exceptions that store.go tells: nothing else depends on them.
type Notify struct {
	addr string // "" when nobody listens
	room int    // connections that the manager keeps for us

	// mu is held while a message is sent, so that messages leave in the order
	// in which the fields below changed.
	mu        sync.Mutex
	ready     bool // READY=1 was sent once
	reloading bool // RELOADING=1 was sent and READY=1 not yet
	stopping  bool // STOPPING=1 was sent
	stored    int  // connections that were sent to be kept
}

// NewNotify takes NOTIFY_SOCKET and FDSTORE out of the environment.
func NewNotify() *Notify {
	n := &Notify{addr: os.Getenv("NOTIFY_SOCKET"), room: storeRoom(os.Getenv("FDSTORE"))}
	_ = os.Unsetenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("FDSTORE")
	return n
}

// Enabled reports whether anybody is told at all.
func (n *Notify) Enabled() bool { return n.addr != "" }

// Ready says that we serve: after the start, and again at the end of every
// reload, whether it succeeded or not. An empty status leaves the last one.
func (n *Notify) Ready(status string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return n.sendStatus(status)
	}
	n.ready, n.reloading = true, false
	return n.send(daemon.SdNotifyReady + "\n" + statusLine(status))
}

// Reloading says that a reload has begun. Whoever calls it calls Ready when
// the reload is over. Before the first Ready and after Stopping there is
// nothing to reload, and only the status is sent.
func (n *Notify) Reloading(status string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ready || n.stopping {
		return n.sendStatus(status)
	}
	n.reloading = true
	// The time stamp belongs into the same datagram: it is how the manager
	// tells this reload's READY=1 from one that was under way before.
	return n.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() + statusLine(status))
}

// Stopping says that we go down and why, once; later calls only send the
// status. A reload that is still under way is closed first.
func (n *Notify) Stopping(status string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return n.sendStatus(status)
	}
	var err error
	if n.reloading {
		n.reloading = false
		err = n.send(daemon.SdNotifyReady)
	}
	n.stopping = true
	if e := n.send(daemon.SdNotifyStopping + "\n" + statusLine(status)); e != nil {
		err = e
	}
	return err
}

// Status replaces the line that `systemctl status` shows.
func (n *Notify) Status(text string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sendStatus(text)
}

// ExtendTimeout asks that the current start or stop may take d longer, counted
// from now. It must be repeated before d has passed.
func (n *Notify) ExtendTimeout(d time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(max(d.Microseconds(), 1), 10))
}

// Watchdog says that we are well. The manager stops its watchdog itself once
// we are stopping, so nothing is sent then.
func (n *Notify) Watchdog() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return nil
	}
	return n.send(daemon.SdNotifyWatchdog)
}

// sendStatus sends text alone. The caller holds mu.
func (n *Notify) sendStatus(text string) error {
	line := statusLine(text)
	if line == "" {
		return nil
	}
	return n.send(line)
}

// send sends one datagram and, beside it, duplicates of the descriptors. The
// caller holds mu. The address is dialled every time, as the manager's socket
// is another one after it was executed anew; and here rather than by
// daemon.SdNotify, which knows neither deadlines nor descriptors.
//
// A connected socket, as only such a one tells when the manager has room again
// after its queue was full; and sendmsg by hand, as WriteMsgUnix refuses those.
func (n *Notify) send(message string, descriptors ...int) error {
	if n.addr == "" {
		return nil
	}
	err := n.transmit([]byte(message), descriptors)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

func (n *Notify) transmit(message []byte, descriptors []int) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.addr, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if len(descriptors) == 0 {
		_, err = c.Write(message)
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(descriptors...)
	var sent error
	err = raw.Write(func(fd uintptr) (done bool) {
		for {
			sent = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(sent, unix.EINTR) {
				return !errors.Is(sent, unix.EAGAIN)
			}
		}
	})
	if err == nil {
		err = os.NewSyscallError("sendmsg", sent)
	}
	return err
}

// statusLine makes one assignment of text, whatever text holds: a line break
// in it would begin another assignment, and the manager throws away a status
// that is not UTF-8.
func statusLine(text string) string {
	if text == "" {
		return ""
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) > maxStatusBytes {
		cut := maxStatusBytes
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return "STATUS=" + text
}
