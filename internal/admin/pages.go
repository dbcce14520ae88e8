package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxBodyBytes is of requests; none needs one.
const maxBodyBytes = 4 << 10

// reads are the methods of everything that changes nothing.
const reads = "GET, HEAD"

const reloadPath = "/reload"

// readablePaths are those that can be opened, in the order of the index.
func readablePaths() []string {
	return []string{"/", "/livez", "/readyz", "/status", "/metrics"}
}

func readable(path string) bool { return slices.Contains(readablePaths(), path) }

// answer returns the one entrance for requests that come in over. stop ends
// when the Server does.
func (s *Server) answer(stop context.Context, over access) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.options.Report(fmt.Errorf("admin: %s %s: panic: %v", r.Method, short(r.URL.Path), p))
				panic(http.ErrAbortHandler) // net/http closes the connection
			}
		}()
		g := s.current.Load()
		secure(w.Header(), r)
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		if no := guard(r, over, g); no != nil {
			s.denied.Add(1)
			no.write(w)
			return
		}
		if no := s.admit(r, over, g); no != nil {
			no.write(w)
			return
		}
		s.serve(stop, w, r, over)
	})
}

// admit says why r is not answered by a page; nil when it is.
func (s *Server) admit(r *http.Request, over access, g *generation) *refusal {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if over == overTCP {
		if !read {
			return notAllowed(reads, "this address is read only; changes go through the Unix socket")
		}
		if no := s.authenticate(r, g); no != nil {
			return no
		}
	}
	switch {
	case over == overUnix && slices.Contains(changePaths(), r.URL.Path):
		if r.Method != http.MethodPost {
			return notAllowed(http.MethodPost, "this changes something, which takes POST")
		}
	case !readable(r.URL.Path):
		return notFound()
	case !read:
		return notAllowed(reads, "this can only be read")
	}
	return nil
}

// secure makes browsers keep the answer to themselves and run nothing in it.
func secure(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// serve answers with the page that admit found.
func (s *Server) serve(stop context.Context, w http.ResponseWriter, r *http.Request, over access) {
	switch r.URL.Path {
	case "/livez":
		text(w, http.StatusOK, "ok")
	case "/readyz":
		if ok, reason := s.options.Ready(); !ok {
			text(w, http.StatusServiceUnavailable, "not ready: "+reason)
			return
		}
		text(w, http.StatusOK, "ready")
	case "/metrics":
		s.options.Metrics.ServeHTTP(w, r)
	case "/status":
		s.json(w, http.StatusOK, s.options.Status())
	case reloadPath:
		s.reload(stop, w)
	case drainPath, resumePath:
		s.changeEndpoint(stop, w, r)
	default:
		index(w, over)
	}
}

// reload answers once the reload is done, however long that takes.
func (s *Server) reload(stop context.Context, w http.ResponseWriter) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // of a connection that is gone: nobody waits
	_ = c.SetWriteDeadline(time.Time{})
	result := s.options.Reload(stop)
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	status := http.StatusOK
	if !result.OK {
		status = http.StatusUnprocessableEntity
	}
	s.json(w, status, result)
}

func text(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, strings.ReplaceAll(line, "\n", " ")+"\n") // who hung up needs no answer
}

func (s *Server) json(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.options.Report(fmt.Errorf("admin: write an answer as JSON: %w", err))
		(&refusal{status: http.StatusInternalServerError, detail: "the answer cannot be written as JSON"}).write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // who hung up needs no answer
}

// index lists the pages, for people.
func index(w http.ResponseWriter, over access) {
	page := `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>mtls-proxy</title></head>
<body><h1>mtls-proxy</h1><ul>
<li><a href="/livez">/livez</a> the process answers</li>
<li><a href="/readyz">/readyz</a> the configuration is loaded, the listeners serve, nothing is being drained</li>
<li><a href="/status">/status</a> listeners, routes, upstreams, certificates, limits, the last reload (JSON)</li>
<li><a href="/metrics">/metrics</a> for Prometheus</li>
`
	if over == overUnix {
		page += "<li>POST /reload reads configuration and certificates again</li>\n" +
			"<li>POST /endpoint/drain and /endpoint/resume put an endpoint aside and take it back: ?upstream=NAME&amp;address=ADDRESS</li>\n"
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, page+"</ul></body></html>\n") // who hung up needs no answer
}
