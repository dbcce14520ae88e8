package admin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// access is the way a request came in, which decides what it may do.
type access uint8

const (
	overTCP  access = iota // reads, with a password but for the open paths
	overUnix               // reads and changes: the file's permissions have decided who
)

// refusal is an answer that says no, and why.
type refusal struct {
	status int
	detail string
	header [2]string // one more field, if the first is set
}

// write answers with a problem of RFC 9457.
func (f *refusal) write(w http.ResponseWriter) {
	if f.header[0] != "" {
		w.Header().Set(f.header[0], f.header[1])
	}
	body, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(f.status), f.status, f.detail})
	if err != nil { // strings and a number
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(f.status)
	_, _ = w.Write(append(body, '\n')) // who hung up needs no answer
}

// guard refuses what a web page in a browser of this machine asks for: such a
// page reaches loopback with the user's hands, under a name of its own choice.
func guard(r *http.Request, over access, g *generation) *refusal {
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "none" && site != "same-origin" {
			return &refusal{status: http.StatusForbidden, detail: "a browser sent this for the page of another site (Sec-Fetch-Site: " +
				strconv.Quote(short(site)) + "); open the address itself"}
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		if !strings.EqualFold(origin, scheme(r)+"://"+r.Host) {
			return &refusal{status: http.StatusForbidden, detail: "a browser sent this for a page of " + strconv.Quote(short(origin)) + ", which is not this one"}
		}
	}
	if over == overTCP && !hostAllowed(r, g) {
		return &refusal{status: http.StatusForbidden, detail: "Host " + strconv.Quote(short(r.Host)) + " is no name of this listener; use localhost or its address"}
	}
	return nil
}

// hostAllowed reports whether Host names us, so that a name which somebody
// else's DNS pointed here does not pass. TLS has settled that already.
func hostAllowed(r *http.Request, g *generation) bool {
	if r.TLS != nil || r.Host == "" && !r.ProtoAtLeast(1, 1) {
		return true
	}
	host := hostname(r.Host)
	if isLoopback(host) {
		return true
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		ip, err := netip.ParseAddr(host)
		if err == nil && ip.Unmap() == local.AddrPort().Addr().Unmap() {
			return true
		}
	}
	return host != "" && strings.EqualFold(host, hostname(g.settings.Address))
}

// hostname cuts the port and the brackets off.
func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// short keeps what a stranger wrote from filling the answer.
func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// authenticate says why r may not read path; nil when it may.
func (s *Server) authenticate(r *http.Request, g *generation) *refusal {
	if g.open[r.URL.Path] {
		return nil
	}
	if len(g.settings.Users) == 0 {
		if !readable(r.URL.Path) {
			return notFound()
		}
		detail := "this needs a password and [admin] users has none"
		if g.settings.Socket != "" {
			detail += fmt.Sprintf("; without one: curl --unix-socket %s http://localhost%s", g.settings.Socket, r.URL.Path)
		}
		return &refusal{status: http.StatusForbidden, detail: detail}
	}
	user, password, sent := r.BasicAuth()
	if !sent {
		return unauthorized("this needs the name and password of one of [admin] users")
	}
	switch g.passwords.check(r.Context(), sourceOf(r.Context()), user, password) {
	case granted:
		return nil
	case busy:
		s.authBusy.Add(1)
		return &refusal{status: http.StatusServiceUnavailable, detail: "too many passwords are being checked; those that were right lately still pass at once",
			header: [2]string{"Retry-After", strconv.Itoa(int(waitFor.Seconds()))}}
	default:
		s.authFailures.Add(1)
		return unauthorized("the name or the password is wrong")
	}
}

func unauthorized(detail string) *refusal {
	return &refusal{status: http.StatusUnauthorized, detail: detail,
		header: [2]string{"WWW-Authenticate", `Basic realm="mtls-proxy", charset="UTF-8"`}}
}

func notFound() *refusal {
	return &refusal{status: http.StatusNotFound, detail: "there is nothing here; / lists what there is"}
}

func notAllowed(methods, detail string) *refusal {
	return &refusal{status: http.StatusMethodNotAllowed, detail: detail, header: [2]string{"Allow", methods}}
}
