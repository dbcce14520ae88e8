// Package connect reaches servers through an HTTP proxy, by the method CONNECT.
package connect

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/http1"
)

// maxHeadBytes bounds what a proxy may say before the tunnel begins. What it says after a refusal is not read.
const maxHeadBytes = 16 << 10

// Proxy is an HTTP proxy. It is safe for concurrent use.
type Proxy struct {
	address string
	user    string
	header  string // Proxy-Authorization, whole; secret
}

// New returns the proxy at rawURL, http://host:port or http://user@host:port. The password is not part of the URL, and
// no error shows either of them whole.
func New(rawURL, password string) (*Proxy, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("the URL of the proxy cannot be read") // err would show it, with whatever is in it
	}
	p := &Proxy{user: u.User.Username()}
	_, inURL := u.User.Password()
	switch {
	case u.Scheme != "http":
		return nil, errors.New("the URL of the proxy does not begin with http://")
	case inURL:
		return nil, errors.New("the URL of the proxy has a password in it; it belongs in a file of its own")
	case u.Hostname() == "":
		return nil, errors.New("the URL of the proxy names no host")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "", u.Opaque != "":
		return nil, errors.New("the URL of the proxy has more in it than a host and a port")
	case password != "" && p.user == "":
		return nil, errors.New("the proxy has a password and no user")
	case strings.Contains(p.user, ":"):
		return nil, errors.New("the user for the proxy has a colon in it, which Basic authentication cannot send")
	case strings.ContainsFunc(p.user+password, isControl):
		return nil, errors.New("the user or the password for the proxy has a control character in it")
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	p.address = net.JoinHostPort(u.Hostname(), port)
	if u.User != nil {
		p.header = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+password)) + "\r\n"
	}
	return p, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// String returns the address of the proxy.
func (p *Proxy) String() string { return p.address }

// Equal reports whether q is the same proxy with the same user and password. Either may be nil.
func (p *Proxy) Equal(q *Proxy) bool { return p == q || p != nil && q != nil && *p == *q }

// GoString hides what is secret from %#v.
func (p *Proxy) GoString() string { return "connect.Proxy(" + p.address + ")" }

// Refusal is the error of Dial when the proxy answered, and the answer was no.
type Refusal struct {
	Status  int
	user    string
	schemes []string // of authentication, that it asks for
}

func (r *Refusal) Error() string {
	if r.Status != 407 {
		return fmt.Sprintf("the proxy refused with status %d", r.Status)
	}
	text := "the proxy wants to know who we are (status 407), and no user is configured"
	if r.user != "" {
		text = fmt.Sprintf("the proxy does not accept our password for user %q (status 407)", r.user)
	}
	if len(r.schemes) > 0 && !slices.ContainsFunc(r.schemes, func(s string) bool { return strings.EqualFold(s, "Basic") }) {
		text += fmt.Sprintf("; it takes %s, and we only know Basic", strings.Join(r.schemes, ", "))
	}
	return text
}

// Malformed is the error of Dial when what the proxy sent is not an answer that can be followed. It shows nothing of that.
type Malformed struct{ reason string }

func (m *Malformed) Error() string { return m.reason }

// Dial returns a connection to address, host:port, that dial made to the proxy: nothing has been read from it that is
// not the proxy's, so it can be used as if it led to address. A nil dial is that of a net.Dialer. When ctx is done
// before that, the connection is closed and the error is the cause of ctx; nothing else bounds the wait for the proxy.
func (p *Proxy) Dial(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("connect through proxy %s: %w", p.address, &net.AddrError{Err: "is not host:port", Addr: strconv.Quote(address)})
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", p.address)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		err = p.ask(nc, address)
		if !stop() && err == nil {
			err = ctx.Err() // it is closed or will be
		}
		if err != nil {
			nc.Close()
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s through proxy %s: %w", address, p.address, err)
	}
	return nc, nil
}

// ask has the proxy open the tunnel.
func (p *Proxy) ask(nc net.Conn, address string) error {
	request := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n" + p.header + "\r\n"
	if _, err := io.WriteString(nc, request); err != nil {
		return err
	}
	var buf [maxHeadBytes]byte
	n, interims := 0, http1.Interims(0)
	for {
		end := headEnd(buf[:n])
		if end > 0 {
			status, err := parseStatus(buf[:end])
			switch {
			case err != nil:
				return err
			case status/100 == 1 && status != 101:
				if err := interims.Pass(); err != nil {
					return &Malformed{"the proxy sent " + err.Error()}
				}
				n = copy(buf[:], buf[end:n]) // interim
				continue
			case status/100 != 2:
				return &Refusal{Status: status, user: p.user, schemes: schemes(buf[:end])}
			case n > end:
				// A TLS server waits for us to begin. Were these bytes lost, nobody would find out why it fails.
				return &Malformed{"the proxy sent more than its answer before the tunnel was in use"}
			}
			return nil
		}
		if !mayBegin(buf[:n]) {
			return errNotHTTP
		}
		if n == len(buf) {
			return &Malformed{fmt.Sprintf("the head of the proxy's answer is longer than %d bytes", maxHeadBytes)}
		}
		m, err := nc.Read(buf[n:])
		n += m
		if m == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("the proxy closed the connection without a whole answer: %w", io.ErrUnexpectedEOF)
			}
			return err
		}
	}
}

var errNotHTTP = &Malformed{"what the proxy answered is not HTTP/1.x"}

// mayBegin reports whether b can be the beginning of an answer.
func mayBegin(b []byte) bool {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	return string(b[:n]) == version[:n]
}

// headEnd returns where the head in b ends, 0 when it is not all there.
func headEnd(b []byte) int {
	for i := 0; ; {
		nl := bytes.IndexByte(b[i:], '\n')
		if nl < 0 {
			return 0
		}
		i += nl + 1
		if rest := b[i:]; len(rest) > 0 && rest[0] == '\n' {
			return i + 1
		} else if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 2
		}
	}
}

// parseStatus reads the status of a head.
func parseStatus(head []byte) (int, error) {
	line, _, _ := strings.Cut(string(head), "\n")
	version, rest, _ := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
	code, _, _ := strings.Cut(rest, " ")
	if !mayBegin([]byte(version)) || len(version) != len("HTTP/1.1") || len(code) != 3 {
		return 0, errNotHTTP
	}
	status := 0
	for _, c := range code {
		if c < '0' || c > '9' {
			return 0, errNotHTTP
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, errNotHTTP
	}
	return status, nil
}

// schemes returns the first word of each Proxy-Authenticate, as far as they look like names of schemes.
func schemes(head []byte) (all []string) {
	for line := range strings.Lines(string(head)) {
		name, value, _ := strings.Cut(line, ":")
		if !strings.EqualFold(name, "Proxy-Authenticate") {
			continue
		}
		words := strings.Fields(value)
		if len(words) == 0 || len(words[0]) > 20 || len(all) == 8 {
			continue
		}
		if !strings.ContainsFunc(words[0], func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}) {
			all = append(all, words[0])
		}
	}
	return all
}
