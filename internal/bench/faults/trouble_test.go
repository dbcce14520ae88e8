//go:build linux

package faults

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// trouble is what an endpoint does instead of answering.
type trouble struct {
	unread bool // it strikes before a request is read; there is none then
	deaf   bool // it strikes before the request's body is read

	// strike deals with a request and reports whether there may be another on the connection.
	strike func(p *peer, req *http.Request) bool
}

// wait lets d pass unless the endpoint is healed first.
func (p *peer) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.at.healing():
	}
}

func delaysHead(d time.Duration) *trouble {
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		p.at.seen.begin()
		p.wait(d)
		p.at.seen.end() // who gets the answer may ask again at once
		return p.answer(req)
	}}
}

func delaysBody(d time.Duration) *trouble {
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		body := answerTo(req.Header.Get(idField))
		fmt.Fprintf(p, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:len(body)/2])
		p.wait(d)
		_, err := io.WriteString(p, body[len(body)/2:])
		return err == nil
	}}
}

func resetsUnread() *trouble {
	return &trouble{unread: true, strike: func(p *peer, _ *http.Request) bool {
		p.reset()
		return false
	}}
}

// resetsAfter sends part of a response, perhaps nothing, and resets the connection.
func resetsAfter(part func(id string) string) *trouble {
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		io.WriteString(p, part(req.Header.Get(idField)))
		p.reset()
		return false
	}}
}

func nothing(string) string { return "" }

func halfHead(string) string { return "HTTP/1.1 200 OK\r\nContent-Ty" }

func halfBody(id string) string {
	body := answerTo(id)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:len(body)/2])
}

// truncates sends half a body and ends the connection in good order.
func truncates() *trouble {
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		io.WriteString(p, halfBody(req.Header.Get(idField)))
		p.Close()
		return false
	}}
}

// closesIdle answers, promises nothing, and closes.
func closesIdle() *trouble {
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		p.answer(req)
		p.Close()
		return false
	}}
}

// hangs does not answer before it is healed.
func hangs() *trouble {
	return &trouble{strike: func(p *peer, req *http.Request) bool {
		<-p.at.healing()
		return p.answer(req)
	}}
}

// stopsReading leaves the body of requests where it is until it is healed.
func stopsReading() *trouble {
	return &trouble{deaf: true, strike: func(p *peer, req *http.Request) bool {
		<-p.at.healing()
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return false
		}
		return p.answer(req)
	}}
}

// unavailable answers 503, with Retry-After unless that is empty.
func unavailable(retryAfter string) *trouble {
	field := ""
	if retryAfter != "" {
		field = "Retry-After: " + retryAfter + "\r\n"
	}
	return &trouble{strike: func(p *peer, _ *http.Request) bool {
		_, err := io.WriteString(p, "HTTP/1.1 503 Service Unavailable\r\n"+field+"Content-Length: 5\r\n\r\nbusy\n")
		return err == nil
	}}
}

// sends answers with a long body.
func sends(n int) *trouble {
	return &trouble{strike: func(p *peer, _ *http.Request) bool {
		fmt.Fprintf(p, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)
		_, err := io.CopyN(p, endless{}, int64(n))
		return err == nil
	}}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, strings.Repeat("x", len(b))), nil }
