package connect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const secret = "s3cret:with colon"

func mustNew(t testing.TB, url, password string) *Proxy {
	t.Helper()
	p, err := New(url, password)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// answering returns a dial to a proxy that reads the request and then sends answer, a piece at a time, and closes after
// that when asked to.
func answering(pieces []string, close bool) (dial func(context.Context, string, string) (net.Conn, error), request func() string) {
	var got bytes.Buffer
	var group sync.WaitGroup
	return func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			group.Go(func() {
				r := bufio.NewReader(theirs)
				for {
					line, err := r.ReadString('\n')
					got.WriteString(line)
					if err != nil || line == "\r\n" {
						break
					}
				}
				for _, p := range pieces {
					if _, err := io.WriteString(theirs, p); err != nil {
						break
					}
				}
				if close {
					theirs.Close()
				}
			})
			return ours, nil
		}, func() string {
			group.Wait()
			return got.String()
		}
}

func TestDialAsksForATunnel(t *testing.T) {
	for _, tt := range []struct{ name, url, password, want string }{
		{"without a user", "http://proxy.test:3128", "", ""},
		{"with a user", "http://billing@proxy.test:3128", "", "Proxy-Authorization: Basic YmlsbGluZzo=\r\n"},
		{"with user and password", "http://billing@proxy.test:3128/", secret, "Proxy-Authorization: Basic YmlsbGluZzpzM2NyZXQ6d2l0aCBjb2xvbg==\r\n"},
		{"with a user in percents", "http://b%20x@proxy.test:3128", "p", "Proxy-Authorization: Basic YiB4OnA=\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dial, request := answering([]string{"HTTP/1.1 200 Connection established\r\n\r\n"}, false)
			nc, err := mustNew(t, tt.url, tt.password).Dial(t.Context(), dial, "ledger.test:8443")
			if err != nil {
				t.Fatal(err)
			}
			nc.Close()
			want := "CONNECT ledger.test:8443 HTTP/1.1\r\nHost: ledger.test:8443\r\n" + tt.want + "\r\n"
			if got := request(); got != want {
				t.Errorf("request %q; want %q", got, want)
			}
		})
	}
}

func TestAnswersOfAProxy(t *testing.T) {
	long := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeadBytes)
	for _, tt := range []struct{ name, answer, want string }{
		{"plain", "HTTP/1.1 200 OK\r\n\r\n", ""},
		{"old, without a reason", "HTTP/1.0 200\r\n\r\n", ""},
		{"bare line feeds", "HTTP/1.1 200 OK\nVia: x\n\n", ""},
		{"another success, with lengths that mean nothing", "HTTP/1.1 204 No\r\nContent-Length: 10\r\n\r\n", ""},
		{"interim first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		{"interim without end", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1001) + "HTTP/1.1 200 OK\r\n\r\n",
			"the proxy sent more than 1000 interim responses before the final one"},
		{"refusal", "HTTP/1.1 403 s3cret:with colon\r\nContent-Length: 3\r\n\r\nno!", "the proxy refused with status 403"},
		{"failure", "HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy refused with status 502"},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: http://x\r\n\r\n", "the proxy refused with status 302"},
		{"switching", "HTTP/1.1 101 Switching\r\n\r\n", "the proxy refused with status 101"},
		{"wrong password", "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"s3cret:with colon\"\r\n\r\n",
			`the proxy does not accept our password for user "billing" (status 407)`},
		{"other schemes", "HTTP/1.1 407 No\r\nproxy-authenticate: Negotiate\r\nProxy-Authenticate: NTLM abc\r\nProxy-Authenticate: s3cret:with colon\r\n\r\n",
			`the proxy does not accept our password for user "billing" (status 407); it takes Negotiate, NTLM, and we only know Basic`},
		{"more than an answer", "HTTP/1.1 200 OK\r\n\r\nx", "the proxy sent more than its answer before the tunnel was in use"},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x46", "what the proxy answered is not HTTP/1.x"},
		{"SSH", "SSH-2.0-OpenSSH\r\n", "what the proxy answered is not HTTP/1.x"},
		{"HTTP/2", "HTTP/2 200 OK\r\n\r\n", "what the proxy answered is not HTTP/1.x"},
		{"no status", "HTTP/1.1\r\n\r\n", "what the proxy answered is not HTTP/1.x"},
		{"a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "what the proxy answered is not HTTP/1.x"},
		{"a status of letters", "HTTP/1.1 2x0 OK\r\n\r\n", "what the proxy answered is not HTTP/1.x"},
		{"a status of no class", "HTTP/1.1 099 OK\r\n\r\n", "what the proxy answered is not HTTP/1.x"},
		{"too long", long, "the head of the proxy's answer is longer than 16384 bytes"},
		{"nothing", "", "the proxy closed the connection without a whole answer: unexpected EOF"},
		{"half", "HTTP/1.1 200 OK\r\n", "the proxy closed the connection without a whole answer: unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, pieces := range [][]string{{tt.answer}, strings.Split(tt.answer, "")} {
				if tt.name == "more than an answer" {
					pieces = []string{tt.answer} // in pieces, it comes after the answer
				}
				dial, request := answering(pieces, true)
				nc, err := mustNew(t, "http://billing@proxy.test:3128", secret).Dial(t.Context(), dial, "ledger.test:8443")
				if nc != nil {
					nc.Close()
				}
				request()
				if tt.want == "" {
					if err != nil {
						t.Errorf("%d pieces: error %v; want none", len(pieces), err)
					}
					continue
				}
				want := "connect to ledger.test:8443 through proxy proxy.test:3128: " + tt.want
				if err == nil || err.Error() != want {
					t.Errorf("%d pieces: error %v; want %s", len(pieces), err, want)
				}
				if nc != nil {
					t.Errorf("%d pieces: a connection beside an error", len(pieces))
				}
			}
		})
	}
}

func TestRefusalTellsItsStatus(t *testing.T) {
	dial, _ := answering([]string{"HTTP/1.1 407 No\r\n\r\n"}, true)
	_, err := mustNew(t, "http://proxy.test:3128", "").Dial(t.Context(), dial, "ledger.test:8443")
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Status != 407 {
		t.Fatalf("error %v; want a Refusal with status 407", err)
	}
	if want := "the proxy wants to know who we are (status 407), and no user is configured"; refusal.Error() != want {
		t.Errorf("refusal %q; want %q", refusal, want)
	}
}

func TestNewRefusesWhatIsNoProxy(t *testing.T) {
	for _, tt := range []struct{ url, password string }{
		{"https://proxy.test:3128", ""},
		{"proxy.test:3128", ""},
		{"http://:3128", ""},
		{"http://proxy.test:3128/path", ""},
		{"http://proxy.test:3128?" + secret, ""},
		{"http://u:" + secret + "@proxy.test:3128", ""},
		{"http://u:" + secret + "@proxy.test:port", ""},
		{"http://proxy.test:3128", secret},
		{"http://u%3a@proxy.test:3128", secret},
		{"http://u%0d%0a@proxy.test:3128", secret},
		{"http://u@proxy.test:3128", secret + "\n"},
	} {
		_, err := New(tt.url, tt.password)
		if err == nil {
			t.Errorf("New(%q, %q) accepts it", tt.url, tt.password)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestProxyDoesNotShowItsPassword(t *testing.T) {
	p := mustNew(t, "http://billing@proxy.test", secret)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, p); !strings.Contains(got, "proxy.test:80") || strings.Contains(got, "Basic") {
			t.Errorf("%s shows %s; want the address alone", verb, got)
		}
	}
}

func TestDialRefusesAddressesThatAreNone(t *testing.T) {
	p := mustNew(t, "http://proxy.test:3128", "")
	for _, address := range []string{"ledger.test", "", ":8443", "ledger.test:", "ledger.test:8443\r\nX: y", "led ger:1", "lédger:1"} {
		if _, err := p.Dial(t.Context(), nil, address); err == nil || !strings.Contains(err.Error(), "is not host:port") {
			t.Errorf("Dial(%q): %v; want it refused", address, err)
		}
	}
}

func TestCancellationClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		dial := func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, errors.New("took too long"))
		defer cancel()
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := io.ReadAll(theirs); err != nil {
				t.Errorf("the proxy read: %v; want the end of the connection", err)
			}
		})
		_, err := mustNew(t, "http://proxy.test:3128", "").Dial(ctx, dial, "ledger.test:8443")
		if want := "connect to ledger.test:8443 through proxy proxy.test:3128: took too long"; err == nil || err.Error() != want {
			t.Errorf("error %v; want %s", err, want)
		}
		group.Wait()
	})
}

func TestErrorsOfTheDialAreKept(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	if _, err := mustNew(t, "http://proxy.test:3128", "").Dial(t.Context(), dial, "a.test:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v; want net.ErrClosed in it", err)
	}
}

func TestTunnelThroughARealProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer echo.Close()
	group.Go(func() {
		c, err := echo.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		onward, err := net.Dial("tcp", r.Host)
		if err != nil || r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") == "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer onward.Close()
		w.WriteHeader(http.StatusOK)
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = rw.Flush()
		group.Go(func() {
			_, _ = io.Copy(onward, rw) // net/http may have read the first byte already
			onward.Close()
		})
		_, _ = io.Copy(c, onward)
	})}
	group.Go(func() { _ = proxy.Serve(ln) })
	defer proxy.Close()

	nc, err := mustNew(t, "http://billing@"+ln.Addr().String(), secret).Dial(t.Context(), nil, echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, ok := nc.(*net.TCPConn); !ok {
		t.Errorf("the connection is a %T; want the one that was dialled", nc)
	}
	if _, err := io.WriteString(nc, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != "hello" {
		t.Errorf("echo %q, %v; want hello", got, err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nmore", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\n\n", "HTTP/1.1 407 N\r\nProxy-Authenticate: Basic\r\n\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		dial, request := answering([]string{answer}, true)
		nc, err := mustNew(t, "http://billing@proxy.test:3128", "s3cret").Dial(t.Context(), dial, "ledger.test:8443")
		if (nc == nil) == (err == nil) {
			t.Fatalf("connection %v, error %v; want exactly one", nc, err)
		}
		if nc != nil {
			nc.Close()
		}
		request()
		if err == nil {
			return
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the password: %v", err)
		}
		_, refused := errors.AsType[*Refusal](err)
		_, malformed := errors.AsType[*Malformed](err)
		if !refused && !malformed && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v is none of those that a proxy can cause", err)
		}
	})
}

func TestEqualLooksAtAddressUserAndPassword(t *testing.T) {
	proxy := func(url, password string) *Proxy {
		p, err := New(url, password)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := proxy("http://user@proxy.test:3128", "one")
	for name, c := range map[string]struct {
		other *Proxy
		want  bool
	}{
		"the same":         {one, true},
		"an equal one":     {proxy("http://user@proxy.test:3128", "one"), true},
		"another password": {proxy("http://user@proxy.test:3128", "two"), false},
		"another user":     {proxy("http://other@proxy.test:3128", "one"), false},
		"another address":  {proxy("http://user@proxy.test:3129", "one"), false},
		"none":             {nil, false},
	} {
		if one.Equal(c.other) != c.want || c.other.Equal(one) != c.want {
			t.Errorf("Equal of %s = %v, want %v", name, !c.want, c.want)
		}
	}
	if none := (*Proxy)(nil); !none.Equal(nil) {
		t.Error("none is not equal to none")
	}
}
