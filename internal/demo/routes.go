package demo

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Seen is what the upstream saw of a request; /echo answers with it.
type Seen struct {
	Method      string              `json:"method"`
	Target      string              `json:"target"` // byte for byte
	Protocol    string              `json:"protocol"`
	Host        string              `json:"host"`
	Headers     map[string][]string `json:"headers"`
	Trailers    map[string][]string `json:"trailers,omitempty"`
	BodyBytes   int64               `json:"body_bytes"`
	BodySHA256  string              `json:"body_sha256,omitempty"`
	Chunked     bool                `json:"chunked,omitempty"`
	TLS         string              `json:"tls"`
	Resumed     bool                `json:"resumed"`
	ServerName  string              `json:"server_name,omitempty"` // what the client asked for
	Certificate *SeenCertificate    `json:"client_certificate"`    // null: none was presented
}

// SeenCertificate describes the client's certificate.
type SeenCertificate struct {
	Serial   string `json:"serial"` // lower-case hex
	Subject  string `json:"subject"`
	Issuer   string `json:"issuer"`
	NotAfter string `json:"not_after"`
	Chain    int    `json:"chain"` // how many certificates were presented
}

// Handler returns the upstream's ordinary routes:
//
//	/delay?d=250ms            waits, then answers as /echo does
//	/sse?n=5&every=1s         server-sent events, each flushed
//	/bytes?n=1048576          n bytes with Content-Length
//	/chunked?n=3&every=0s     n flushed chunks and the trailer X-Demo-Sum
//	/status/503               that status
//	/upload                   length and SHA-256 of the body
//	/redirect?to=/echo        302 to a URL on the upstream's own origin
//	/cookie                   a cookie with Domain and Secure
//	/upgrade                  101 to the protocol "echo", which sends back what it gets
//	/early                    103 Early Hints, then as /echo
//
// and /echo at every other path.
func Handler() http.Handler {
	routes := map[string]http.HandlerFunc{
		"/delay":    delay,
		"/sse":      events,
		"/bytes":    bytesOf,
		"/chunked":  chunked,
		"/upload":   upload,
		"/redirect": redirect,
		"/cookie":   cookie,
		"/upgrade":  upgrade,
		"/early":    early,
	}
	// No http.ServeMux: it redirects "//" and "..", which are ours to show.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code, ok := strings.CutPrefix(r.URL.Path, "/status/"); ok {
			status(w, code)
		} else if h, ok := routes[r.URL.Path]; ok {
			h(w, r)
		} else {
			echo(w, r)
		}
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		return // the client went away
	}
	s := Seen{
		Method:    r.Method,
		Target:    r.RequestURI,
		Protocol:  r.Proto,
		Host:      r.Host,
		Headers:   r.Header,
		Trailers:  r.Trailer,
		BodyBytes: n,
		Chunked:   len(r.TransferEncoding) > 0,
	}
	if n > 0 {
		s.BodySHA256 = hex.EncodeToString(h.Sum(nil))
	}
	if cs := r.TLS; cs != nil {
		s.TLS = tls.VersionName(cs.Version)
		s.Resumed = cs.DidResume
		s.ServerName = cs.ServerName
		if len(cs.PeerCertificates) > 0 {
			c := cs.PeerCertificates[0]
			s.Certificate = &SeenCertificate{
				Serial:   fmt.Sprintf("%x", c.SerialNumber),
				Subject:  c.Subject.String(),
				Issuer:   c.Issuer.String(),
				NotAfter: c.NotAfter.UTC().Format(time.RFC3339),
				Chain:    len(cs.PeerCertificates),
			}
		}
	}
	writeJSON(w, s)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b = append(b, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}

// pause lets d pass unless the client goes away.
func pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return r.Context().Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func duration(r *http.Request, key string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(r.FormValue(key)); err == nil {
		return d
	}
	return otherwise
}

func number(r *http.Request, key string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(r.FormValue(key), 10, 64); err == nil && n >= 0 {
		return n
	}
	return otherwise
}

func delay(w http.ResponseWriter, r *http.Request) {
	if pause(r, duration(r, "d", 250*time.Millisecond)) {
		echo(w, r)
	}
}

func events(w http.ResponseWriter, r *http.Request) {
	n, every := number(r, "n", 5), duration(r, "every", time.Second)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	for i := int64(1); i <= n; i++ {
		if i > 1 && !pause(r, every) {
			return
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: event %d of %d\n\n", i, i, n); err != nil {
			return
		}
		if flush() != nil {
			return
		}
	}
}

// line is 64 bytes, which bodies are made of.
const line = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n"

func bytesOf(w http.ResponseWriter, r *http.Request) {
	n := number(r, "n", 1024)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	block := strings.Repeat(line, 1024)
	for n > 0 {
		m := min(n, int64(len(block)))
		if _, err := io.WriteString(w, block[:m]); err != nil {
			return
		}
		n -= m
	}
}

func chunked(w http.ResponseWriter, r *http.Request) {
	n, every := number(r, "n", 3), duration(r, "every", 0)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Trailer", "X-Demo-Sum")
	flush := http.NewResponseController(w).Flush
	h := sha256.New()
	for i := int64(1); i <= n; i++ {
		if i > 1 && !pause(r, every) {
			return
		}
		if _, err := fmt.Fprintf(io.MultiWriter(w, h), "chunk %d of %d\n", i, n); err != nil {
			return
		}
		if flush() != nil {
			return
		}
	}
	w.Header().Set("X-Demo-Sum", hex.EncodeToString(h.Sum(nil)))
}

func status(w http.ResponseWriter, text string) {
	code, err := strconv.Atoi(text)
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "want a status from 200 to 599", http.StatusBadRequest)
		return
	}
	if code == http.StatusNoContent || code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, "%d %s\n", code, http.StatusText(code))
}

func upload(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		return // the client went away
	}
	writeJSON(w, map[string]any{"bytes": n, "sha256": hex.EncodeToString(h.Sum(nil))})
}

func redirect(w http.ResponseWriter, r *http.Request) {
	to := r.FormValue("to")
	if !strings.HasPrefix(to, "/") {
		to = "/echo"
	}
	w.Header().Set("Location", "https://"+r.Host+to)
	w.WriteHeader(http.StatusFound)
}

func cookie(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(r.Host, ":")
	http.SetCookie(w, &http.Cookie{Name: "demo", Value: "1", Path: "/", Domain: name, Secure: true, HttpOnly: true})
	echo(w, r)
}

func early(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload")
	w.WriteHeader(http.StatusEarlyHints)
	echo(w, r)
}

func upgrade(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "echo") {
		w.Header().Set("Upgrade", "echo")
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "this path speaks the protocol echo", http.StatusUpgradeRequired)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// The server's deadlines are over; Upstream.Close ends the tunnel.
	_ = c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		return
	}
	if _, err := io.Copy(c, rw.Reader); err != nil {
		return
	}
	if c, ok := c.(*tls.Conn); ok {
		_ = c.CloseWrite() // the client half-closed, and everything was sent back
	}
}
