package admission

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	for _, good := range []string{
		"redis://127.0.0.1:6379/0",
		"redis://127.0.0.1",
		"redis://[::1]:6379",
		"redis://cache.internal/",
		"redis://:pw@cache.internal:6380/15",
		"redis://user:p%40ss%2Fw@cache.internal",
		"rediss://user@cache.internal:6380/1",
		"unix:///run/redis/redis.sock",
		"unix://user:pw@/run/redis/redis.sock?db=3",
	} {
		if _, err := parseURL(good); err != nil {
			t.Errorf("parseURL(%q) = %v; want it accepted", good, err)
		}
	}
	for _, bad := range []string{
		"",
		"sekret",
		"sekret:sekret",
		"sekret:sekret@host",
		"http://sekret@host",
		"redis:127.0.0.1:6379",
		"redis://",
		"redis:///0",
		"redis://:sekret@:6379",
		"redis://user:sek/ret@host",
		"redis://user:1/sekret@host",
		"redis://user:sekret@host:port",
		"redis://user:sekret%zz@host",
		"redis://user:sekret@ho st",
		"redis://user:#sekret@host",
		"redis://host/sekret",
		"redis://host/-1",
		"redis://host/0/1",
		"redis://host/99999999",
		"redis://host/0?skip_verify=sekret",
		"redis://host/0#sekret",
		"unix://host/run/redis.sock",
		"unix:run/redis.sock",
		"unix://",
		"unix:///run/redis.sock?password=sekret",
		"unix:///run/redis.sock?db=1&db=2",
		"unix:///run/redis.sock?db=sekret",
	} {
		_, err := parseURL(bad)
		if err == nil {
			t.Errorf("parseURL(%q) = nil; want it refused", bad)
			continue
		}
		for _, part := range []string{"sekret", "sek", "ret@"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("parseURL(%q) = %v; want nothing of it quoted", bad, err)
			}
		}
	}
}

func FuzzParseURLQuotesNothing(f *testing.F) {
	f.Add("redis", "user:", "host:6379/0")
	f.Add("unix", "", "/run/redis.sock?db=%")
	const password = "Zq7~Zq7"
	f.Fuzz(func(t *testing.T, scheme, before, after string) {
		if _, err := parseURL(scheme + "://" + before + password + "@" + after); err != nil && strings.Contains(err.Error(), "Zq7") {
			t.Errorf("the password is quoted: %v", err)
		}
	})
}

// certify writes a certificate for 127.0.0.1 that stands for itself.
func certify(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "store"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{cert: certPEM, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return cert, key, roots
}

// freePort returns a port on which nobody listens. Somebody may by the time it is used.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

func TestSharedOverTLS(t *testing.T) {
	cert, key, roots := certify(t)
	port := freePort(t)
	st := startStore(t, "--bind", "127.0.0.1", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	o := SharedOptions{URL: "rediss://127.0.0.1:" + port + "/2", RootCAs: roots, PerSecond: 1e-3, Burst: 10, Failure: Deny}
	s := newTestShared(t, o)
	if n := take(t, s, "alice"); n != 10 {
		t.Errorf("%d admitted; want 10", n)
	}
	st.cut()
	if n := take(t, s, "bob"); n != 10 {
		t.Errorf("%d admitted after the store had closed the connection; want 10", n)
	}
	o.RootCAs = x509.NewCertPool()
	stranger := newTestShared(t, o)
	if _, ok, away := stranger.Admit([]byte("alice")); ok || !away {
		t.Errorf("Admit = %v, away %v with a store that nobody vouches for; want it away", ok, away)
	}
}

const goodReply = "*3\r\n:1\r\n:0\r\n:1\r\n"

// imitate is a store that says what reply returns for the command number n, and returns its URL.
func imitate(t *testing.T, reply func(n int, args []string) string) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	go func() {
		defer close(done)
		for n := 0; ; {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			for r := bufio.NewReader(c); ; n++ {
				args, err := readCommand(r)
				if err != nil {
					break
				}
				if _, err := io.WriteString(c, reply(n, args)); err != nil {
					break
				}
			}
			c.Close()
		}
	}()
	return "redis://" + ln.Addr().String()
}

// A refusal of one answer is of its key, and can be read of all the same.
func TestTheStoreRefusesOneKey(t *testing.T) {
	const prefix = "limit:"
	bad := prefix + hashed([]byte("mallory"))
	s := newTestShared(t, SharedOptions{PerSecond: 1, Burst: 10, Failure: Deny, Prefix: prefix, URL: imitate(t, func(_ int, args []string) string {
		if args[3] == bad {
			return "-ERR no such bucket\r\n"
		}
		want := args[6]
		return "*3\r\n:" + want + "\r\n:0\r\n:1\r\n"
	})})
	if _, ok, away := s.Admit([]byte("mallory")); ok || !away {
		t.Errorf("Admit of the refused key = %v, away %v; want the answer for a store that is away", ok, away)
	}
	for i := range 5 {
		if _, ok, away := s.Admit([]byte{'a' + byte(i)}); !ok || away {
			t.Errorf("Admit of another key = %v, away %v; want it admitted", ok, away)
		}
	}
	if st := s.Stats(); st.Away || st.Failed != 1 || st.Err == nil || !strings.Contains(st.Err.Error(), "no such bucket") {
		t.Errorf("the refusal is told as %+v", st)
	}
}

// Whatever answers in the store's place, nothing is taken on its word: no memory, and no end of a wait.
func TestAStoreThatIsNone(t *testing.T) {
	for name, reply := range map[string]string{
		"the largest string":       "$9223372036854775807\r\n",
		"the largest array":        "*9223372036854775807\r\n",
		"a large string":           "$60000000000\r\n",
		"a large array":            "*2000000000\r\n:1\r\n",
		"an endless line":          "+" + strings.Repeat("A", 1<<20),
		"an endless error":         "-" + strings.Repeat("A", 1<<20),
		"an endless number":        "*3\r\n:" + strings.Repeat("1", 1<<20),
		"a number out of range":    "*3\r\n:99999999999999999999\r\n:0\r\n:0\r\n",
		"a string among numbers":   "*3\r\n$1\r\n1\r\n:0\r\n:0\r\n",
		"two numbers":              "*2\r\n:1\r\n:0\r\n",
		"no array":                 "*-1\r\n",
		"a status":                 "+OK\r\n",
		"HTTP":                     "HTTP/1.1 400 Bad Request\r\n\r\n",
		"an empty line":            "\r\n",
		"more granted than wanted": "*3\r\n:1000\r\n:0\r\n:0\r\n",
		"less than nothing":        "*3\r\n:-1\r\n:5\r\n:5\r\n",
		"nothing, and no wait":     "*3\r\n:0\r\n:0\r\n:0\r\n",
		"a wait of an age":         "*3\r\n:0\r\n:9223372036854775807\r\n:5\r\n",
		"full in an age":           "*3\r\n:1\r\n:0\r\n:9223372036854775807\r\n",
		"a wait of five tokens":    "*3\r\n:0\r\n:5000000\r\n:5\r\n",
		"full in two buckets":      "*3\r\n:1\r\n:0\r\n:20000000\r\n",
		"one answer too many":      goodReply + goodReply,
		"the key is elsewhere":     "-MOVED 1 192.0.2.1:6379\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			at := imitate(t, func(n int, _ []string) string {
				if n < 2 { // by which it is found good when it is opened
					return goodReply
				}
				return reply
			})
			s := newTestShared(t, SharedOptions{URL: at, PerSecond: 1, Burst: 10, Failure: Deny})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, ok, away := s.Admit([]byte("alice"))
			runtime.ReadMemStats(&after)
			if ok || !away || s.Stats().Err == nil {
				t.Errorf("Admit = %v, away %v, %v; want the store away", ok, away, s.Stats().Err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
}

// FuzzReplies: nothing that a store sends is more than an error.
func FuzzReplies(f *testing.F) {
	for _, s := range []string{"*3\r\n:1\r\n:2\r\n:3\r\n", "-ERR x\r\n", "$9223372036854775807\r\n", "*2000000000\r\n", "+OK\r\n", ":1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &wire{r: bufio.NewReaderSize(bytes.NewReader(b), maxReply)}
		for {
			n, err := w.numbers()
			if _, refused := errors.AsType[refusal](err); refused {
				continue
			}
			if err != nil {
				return
			}
			q := question{want: 5, interval: 1000, burst: 10}
			if a, err := q.answer(n); err == nil && (a.granted > 5 || a.granted < 0 || a.wait < 0 || a.full < 0 || a.granted < 5 && a.wait == 0) {
				t.Fatalf("%d became %+v", n, a)
			}
		}
	})
}

// What stands in the place of one caller's bucket is that caller's affair, and written over.
func TestABucketThatIsNone(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1e-3, Burst: 5, Failure: Deny})
	key := func(name string) string { return s.prefix + hashed([]byte(name)) }
	set := map[string][]string{
		"a list":        {"RPUSH", "x"},
		"a hash":        {"HSET", "x", "y"},
		"words":         {"SET", "hello world"},
		"nan":           {"SET", "nan nan"},
		"inf":           {"SET", "inf inf"},
		"hexadecimal":   {"SET", "0x10 0x1"},
		"inf in time":   {"SET", "inf 1"},
		"a large time":  {"SET", "1e300 1"},
		"no time":       {"SET", "X 0"},
		"no interval":   {"SET", "1 0"},
		"negative":      {"SET", "1 -1"},
		"three numbers": {"SET", "1 2 3"},
		"one number":    {"SET", "1"},
		"nothing":       {"SET", ""},
	}
	for name, value := range set {
		st.do(append([]string{value[0], key(name)}, value[1:]...)...)
	}
	for name := range set {
		if n := take(t, s, name); n != 5 {
			t.Errorf("%s: %d admitted, want 5", name, n)
		}
		if kind := st.do("TYPE", key(name)); kind != "string" {
			t.Errorf("%s: the store has a %v still", name, kind)
		}
	}
}

// A clock that went back leaves debts larger than the burst. They are cut to the burst, once.
func TestTheClockOfTheStoreGoesBack(t *testing.T) {
	st := startStore(t)
	s := newTestShared(t, SharedOptions{URL: st.url(), PerSecond: 1, Burst: 2, Failure: Deny})
	clock, _ := st.do("TIME").([]any)
	now, err := strconv.ParseInt(clock[0].(string), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	key := s.prefix + hashed([]byte("alice"))
	future := strconv.FormatInt((now-1700000000+15)*1_000_000, 10) // it was full then, by a clock of 15 s more
	st.do("SET", key, future+" 1000000")
	if wait, ok, _ := s.Admit([]byte("alice")); ok || wait > 2*time.Second {
		t.Errorf("Admit = %v, to wait %v; want no more than the 2s in which the bucket fills", ok, wait)
	}
	at, _, _ := strings.Cut(st.do("GET", key).(string), " ")
	full, err := strconv.ParseFloat(at, 64)
	if err != nil || full > float64(now-1700000000+10)*1e6 {
		t.Errorf("the store keeps a bucket that is full at %s, %v", at, err)
	}
}
