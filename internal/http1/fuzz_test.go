package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// slowHead is a head as an obvious reader takes it, who knows nothing of this package.
type slowHead struct {
	first  string
	fields [][2]string
}

var (
	slowToken = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	slowValue = regexp.MustCompile(`^[\t -~\x{80}-\x{ff}]*$`)
	slowFirst = regexp.MustCompile("^([A-Za-z0-9!#$%&'*+.^_`|~-]+) ([!-\"$-~]+) HTTP/1\\.([01])$")
)

// latin1 has every byte as a rune of its own, so that patterns can speak of bytes.
func latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

func readSlowly(t *testing.T, head []byte) slowHead {
	t.Helper()
	text, ended := strings.CutSuffix(latin1(head), "\r\n\r\n")
	if !ended {
		t.Fatalf("%q: accepted without an empty line at its end", head)
	}
	var s slowHead
	for i, line := range strings.Split(text, "\r\n") {
		if i == 0 {
			s.first = line
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if !found || !slowToken.MatchString(name) || !slowValue.MatchString(value) {
			t.Fatalf("%q: accepted with the line %q", head, line)
		}
		s.fields = append(s.fields, [2]string{name, strings.Trim(value, " \t")})
	}
	return s
}

func (s slowHead) values(name string) (values []string) {
	for _, f := range s.fields {
		if strings.EqualFold(f[0], name) {
			values = append(values, f[1])
		}
	}
	return values
}

// sameFields compares what was parsed with what the slow reader saw.
func (s slowHead) sameFields(t *testing.T, fields []Field) {
	t.Helper()
	if len(fields) != len(s.fields) {
		t.Fatalf("%d fields, want %d", len(fields), len(s.fields))
	}
	for i, f := range fields {
		if name, value := latin1(f.Name), latin1(f.Value); name != s.fields[i][0] || value != s.fields[i][1] {
			t.Fatalf("field %d is %q: %q, want %q", i, name, value, s.fields[i])
		}
	}
}

// framing by the letter: at most one of the two fields, at most once.
func (s slowHead) framing(t *testing.T, h *Head) (coded bool) {
	t.Helper()
	lengths, codings := s.values("Content-Length"), s.values("Transfer-Encoding")
	if len(lengths)+len(codings) > 1 {
		t.Fatalf("accepted with Content-Length %q and Transfer-Encoding %q", lengths, codings)
	}
	if len(codings) == 1 && (!strings.EqualFold(codings[0], "chunked") || h.Minor != 1) {
		t.Fatalf("accepted with Transfer-Encoding %q", codings)
	}
	if len(lengths) == 1 {
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || h.HasLength && int64(n) != h.ContentLength {
			t.Fatalf("Content-Length %q was read as %d", lengths, h.ContentLength)
		}
	}
	return len(codings) == 1
}

// FuzzRequestParse: what Parse accepts, an obvious strict reader and net/http read the same way; where the head is cut
// on its way to us makes no difference; and what Append writes is read as the same request again.
func FuzzRequestParse(f *testing.F) {
	for _, tt := range goodRequests {
		f.Add([]byte(tt.head), 7)
	}
	for _, tt := range badRequests {
		f.Add([]byte(tt.head), 20)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var r, again Request
		n, err := r.Parse(b, nil)
		if n > len(b) || n > 0 && err != nil {
			t.Fatalf("Parse = %d, %v", n, err)
		}
		if cut = min(max(cut, 0), len(b)); n == 0 || cut < n {
			m, err2 := inPieces(func(b []byte) (int, error) { return again.Parse(b, nil) }, b, true, cut)
			if m != n || err == nil && err2 != nil {
				t.Fatalf("Parse = %d, %v; cut at %d: %d, %v", n, err, cut, m, err2)
			}
		}
		if n == 0 {
			return
		}
		head := bytes.TrimPrefix(b[:n], []byte("\r\n"))
		slow := readSlowly(t, head)
		first := slowFirst.FindStringSubmatch(slow.first)
		if first == nil || first[1] != string(r.Method) || first[2] != string(r.Target) || first[3] != strconv.Itoa(int(r.Minor)) {
			t.Fatalf("%q was read as %q %q 1.%d", slow.first, r.Method, r.Target, r.Minor)
		}
		slow.sameFields(t, r.Fields)
		if coded := slow.framing(t, &r.Head); coded != (r.Framing == Chunked) {
			t.Fatalf("%q: framing %d", head, r.Framing)
		}
		sameAsNetHTTP(t, head, &r)

		out := r.Append(nil, &RequestRewrite{Forwarded: ForwardedPass})
		if r.Host == nil {
			return // HTTP/1.0 without Host: whoever asks for Append names one
		}
		again.Reset()
		if m, err := again.Parse(out, &Limits{MaxRequestLine: 1 << 20, MaxHead: 1 << 20, MaxFields: 1 << 10}); m != len(out) || err != nil {
			t.Fatalf("%q became %q: Parse = %d, %v", head, out, m, err)
		}
		// What is between the caller and us alone, and what a nominated field that is gone meant.
		again.Minor, again.Form, again.Close, again.KeepAliveToken = r.Minor, r.Form, r.Close, r.KeepAliveToken
		again.ConnectionAuth, again.Idempotency, again.MaxForwards = r.ConnectionAuth, r.Idempotency, r.MaxForwards
		if got, want := summary(&again), summary(&r); got != want {
			t.Fatalf("%q became %q:\n got %s\nwant %s", head, out, got, want)
		}
		if third := again.Append(nil, &RequestRewrite{Forwarded: ForwardedPass}); r.MaxForwards < 0 && !bytes.Equal(third, out) {
			t.Fatalf("%q became %q and then %q", head, out, third)
		}
	})
}

// sameAsNetHTTP compares with net/http where that accepts the head at all; it is stricter on percent-encoding.
func sameAsNetHTTP(t *testing.T, head []byte, r *Request) {
	t.Helper()
	q, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return
	}
	defer q.Body.Close()
	if q.Method != string(r.Method) || q.RequestURI != string(r.Target) {
		t.Fatalf("%q: net/http reads %q %q", head, q.Method, q.RequestURI)
	}
	if r.Form != AsteriskForm && q.Host != string(r.Host) {
		t.Fatalf("%q: host is %q, of net/http %q", head, r.Host, q.Host)
	}
	if chunked := len(q.TransferEncoding) > 0; chunked != (r.Framing == Chunked) || !chunked && q.ContentLength != r.ContentLength {
		t.Fatalf("%q: framing %d, length %d; of net/http %q, %d", head, r.Framing, r.ContentLength, q.TransferEncoding, q.ContentLength)
	}
	if q.Close != r.Close && r.Minor == 1 {
		t.Fatalf("%q: close is %v, of net/http %v", head, r.Close, q.Close)
	}
}

// Names as a CGI program sees them: HTTP_ and upper case left out.
var (
	cgiHop     = regexp.MustCompile(`^(connection|keep_alive|proxy_connection|te|transfer_encoding|upgrade|content_length|host|expect|http2_settings|proxy_authorization)$`)
	cgiForward = regexp.MustCompile(`^(forwarded|x_forwarded_.*|x_real_ip)$`)
	cgiCert    = regexp.MustCompile(`^(client_cert.*|x_forwarded_client_cert.*|x_forwarded_tls_.*|x_client_cert.*|x_ssl_.*|ssl_client_.*)$`)
	cgiMark    = regexp.MustCompile(`[^a-z0-9]`)
)

// FuzzForward: no hop-by-hop field, no field that Connection nominates, nothing about client certificates and no forged
// forwarding field reaches an upstream, not even one that can not tell X_Forwarded_For from X-Forwarded-For.
func FuzzForward(f *testing.F) {
	for _, tt := range goodRequests {
		f.Add([]byte(tt.head))
	}
	for _, s := range []string{
		lines("GET / HTTP/1.1", "Host: b", "Connection: X-A, x-forwarded-for", "X-A: 1", "X-Forwarded-For: 2", "X_Forwarded_For: 3", "Keep-Alive: 1"),
		lines("POST / HTTP/1.1", "Host: b", "Connection: Transfer-Encoding", "Transfer-Encoding: chunked", "TE: trailers", "Trailer: a", "Client.Cert: a"),
		lines("GET / HTTP/1.0", `Forwarded: for="a`, "Via: (a", "SSL-Client-Verify: SUCCESS", "X-User: root", "X_User: root"),
	} {
		f.Add([]byte(s))
	}
	edits, err := CompileEdits(map[string]string{"X-User": "billing"}, nil, []string{"Cookie"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		n, err := r.Parse(b, nil)
		if n == 0 || err != nil {
			return
		}
		in := readSlowly(t, bytes.TrimPrefix(b[:n], []byte("\r\n")))
		var nominated []string
		for _, v := range in.values("Connection") {
			for option := range strings.SplitSeq(strings.ToLower(v), ",") {
				nominated = append(nominated, strings.Trim(option, " \t"))
			}
		}
		for mode := ForwardedStrip; mode <= ForwardedAdd; mode++ {
			out := r.Append(nil, &RequestRewrite{Host: "api.example", Via: "1.1 us", Forwarded: mode, ForwardedElement: []byte("for=192.0.2.1"), CallerAddress: "192.0.2.1", Edits: edits})
			s := readSlowly(t, out)
			if m, err := new(Request).Parse(out, &Limits{MaxRequestLine: 1 << 20, MaxHead: 1 << 20, MaxFields: 1 << 10}); m != len(out) || err != nil {
				t.Fatalf("%q: Parse = %d, %v", out, m, err)
			}
			for _, field := range s.fields {
				checkForwarded(t, mode, &r, field[0], field[1], nominated)
			}
			users := 1
			if Echoes(r.Method) {
				users = 0
			}
			for name, want := range map[string]int{"Host": 1, "X-User": users, "Cookie": 0, "Via": 1} {
				if got := len(s.values(name)); got != want {
					t.Fatalf("%q: %d fields %s, want %d", out, got, name, want)
				}
			}
			if via := s.values("Via")[0]; !strings.HasSuffix(via, " us") {
				t.Fatalf("%q: Via does not end with ours", out)
			}
			if v := s.values("Forwarded"); mode == ForwardedAdd &&
				(len(v) != 1 || !strings.Contains(v[0], "for=192.0.2.1") || strings.Count(v[0], `"`)%2 != 0 && !strings.Contains(v[0], `\`)) {
				t.Fatalf("%q: Forwarded is %q", out, v)
			}
		}
	})
}

func checkForwarded(t *testing.T, mode ForwardedMode, r *Request, name, value string, nominated []string) {
	t.Helper()
	cgi := cgiMark.ReplaceAllString(strings.ToLower(name), "_")
	remade := map[string]bool{
		"Host": value == "api.example", "Connection": value == "TE" || value == "Upgrade" || value == "Upgrade, TE",
		"TE": value == "trailers", "Upgrade": value == string(r.Upgrade) && !strings.Contains(strings.ToLower(value), "h2c"),
		"Transfer-Encoding": value == "chunked", "Content-Length": value == strconv.FormatInt(r.ContentLength, 10), "Expect": value == "100-continue",
	}
	if cgiHop.MatchString(cgi) && !remade[name] {
		t.Fatalf("%s: %s got through", name, value)
	}
	if cgiCert.MatchString(cgi) {
		t.Fatalf("%s got through", name)
	}
	if cgiForward.MatchString(cgi) && (mode == ForwardedStrip || strings.ToLower(name) != strings.ReplaceAll(cgi, "_", "-")) {
		t.Fatalf("%s got through in mode %d", name, mode)
	}
	if cgi == "x_user" && value != "billing" {
		t.Fatalf("%s: %s got through beside the operator's", name, value)
	}
	ours := map[string]bool{"Via": true, "X-User": true, "Forwarded": true, "X-Forwarded-For": true, "X-Forwarded-Host": true, "X-Forwarded-Proto": true}
	for _, n := range nominated {
		if strings.EqualFold(n, name) && !remade[name] && !ours[name] && n != "max-forwards" {
			t.Fatalf("%s got through although Connection nominates it", name)
		}
	}
}

// FuzzResponseParse: what Parse accepts, an obvious strict reader reads the same way; where the head is cut makes no
// difference; and what Append writes is framed as OutFraming says.
func FuzzResponseParse(f *testing.F) {
	for _, tt := range goodResponses {
		f.Add([]byte(tt.text), tt.head, 9)
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 1\r\n\r\n"), false, 30)
	f.Fuzz(func(t *testing.T, b []byte, head bool, cut int) {
		var r, again Response
		n, err := r.Parse(b, head, nil)
		if cut = min(max(cut, 0), len(b)); n == 0 || cut < n {
			m, err2 := inPieces(func(b []byte) (int, error) { return again.Parse(b, head, nil) }, b, true, cut)
			if m != n || err == nil && err2 != nil {
				t.Fatalf("Parse = %d, %v; cut at %d: %d, %v", n, err, cut, m, err2)
			}
		}
		if n == 0 || err != nil {
			return
		}
		slow := readSlowly(t, b[:n])
		slow.sameFields(t, r.Fields)
		if r.Status != 101 { // in which framing fields mean nothing
			slow.framing(t, &r.Head)
		}
		for minor := range uint8(2) {
			out := r.Append(nil, &ResponseRewrite{CallerMinor: minor})
			again.Reset()
			if m, err := again.Parse(out, head, &Limits{MaxHead: 1 << 20, MaxFields: 1 << 10}); m != len(out) || err != nil {
				t.Fatalf("%q became %q: Parse = %d, %v", b[:n], out, m, err)
			}
			framing, closing := r.OutFraming(minor)
			if again.Status != r.Status || again.Framing != framing || again.HasLength != r.HasLength || again.ContentLength != r.ContentLength || again.Close != closing {
				t.Fatalf("%q became %q", b[:n], out)
			}
			for _, field := range again.Fields {
				if field.ID == KeepAlive || field.ID == ProxyConnection || field.ID == TE {
					t.Fatalf("%q became %q", b[:n], out)
				}
			}
		}
	})
}

// sizeLine is chunk-size [ chunk-ext ] of RFC 9112 section 7.1.
var sizeLine = regexp.MustCompile("(?s)^[0-9A-Fa-f]+([ \t]*;[ \t]*" + extToken + "([ \t]*=[ \t]*(" + extToken + `|"([^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*"` + "))?)*$")

const extToken = "[-!#$%&'*+.^_`|~0-9A-Za-z]+"

// FuzzChunked: how a body is cut on its way to us makes no difference to what is read or refused, and what we write is
// read as the same again. A request's size line keeps to the grammar, and what a request may hold, a response may.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "3;a=\"b\"\r\nabc\r\n0;c\r\n\r\nGET ", "3 \t; a = b;c\r\nabc\r\n0\r\n\r\n", "3;\r\nabc\r\n0\r\n\r\n", "3;a=\"\\\"\"\r\nabc\r\n0 \r\n\r\n", "5\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "0\r\nContent-Length: 1\r\n\r\n",
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		if len(b) == 0 {
			return
		}
		limits := &Limits{MaxHead: 1 << 10, MaxFields: 10}
		var d, pieces, again ChunkReader
		data, trailers, used, err := readChunks(&d, string(b), len(b), limits)
		data2, trailers2, used2, err2 := readChunks(&pieces, string(b), 1+(piece&0xff), limits)
		if (err == nil) != (err2 == nil) || err == nil && (data != data2 || trailers != trailers2 || used != used2) {
			t.Fatalf("%q: %q, %q, %d, %v; in pieces %q, %q, %d, %v", b, data, trailers, used, err, data2, trailers2, used2, err2)
		}
		if err != nil {
			return
		}
		if line, _, _ := strings.Cut(string(b), "\r\n"); !sizeLine.MatchString(line) {
			t.Fatalf("the size line %q was accepted", line)
		}
		response := ChunkReader{Response: true}
		if data4, trailers4, used4, err := readChunks(&response, string(b), len(b), limits); err != nil || data4 != data || trailers4 != trailers || used4 != used {
			t.Fatalf("%q in a response: %q, %q, %d, %v; want %q, %q, %d", b, data4, trailers4, used4, err, data, trailers, used)
		}
		var out []byte
		if len(data) > 0 {
			out = AppendChunkHeader(out, len(data))
			out = append(out, data+"\r\n"...)
		}
		out = AppendLastChunk(out, d.Trailers())
		data3, trailers3, used3, err := readChunks(&again, string(out), len(out), &Limits{})
		if err != nil || used3 != len(out) || data3 != data || trailers3 != trailers {
			t.Fatalf("%q was written as %q: %q, %q, %d, %v", b, out, data3, trailers3, used3, err)
		}
	})
}

// FuzzLocation: a rewritten reference leads to the caller's host or, if the upstream named another, there; a cookie
// keeps its name and value.
func FuzzLocation(f *testing.F) {
	for _, s := range []string{
		"https://api.example/v2/a?b#c", "//api.example", "/v2//evil", "/v2/\\evil", "https://api.example.evil/", "https://api.example@evil/", "/v2", "", "v2", "a=b; Domain=example; Secure; Path=/v2/x; SameSite=None",
	} {
		f.Add(s)
	}
	rewrites := []*LocationRewrite{
		{Origins: []string{"https://api.example"}, Domains: []string{"api.example"}},
		{Origins: []string{"https://api.example"}, Domains: []string{"api.example"}, AddPrefix: "/v2"},
		{Origins: []string{"https://api.example"}, Domains: []string{"api.example"}, StripPrefix: "/bank", AddPrefix: "/v2/"},
	}
	f.Fuzz(func(t *testing.T, value string) {
		if !all([]byte(value), valueByte) || strings.Trim(value, " \t") != value {
			return
		}
		base := &url.URL{Scheme: "http", Host: "me:8080", Path: "/asked"}
		for i, l := range rewrites {
			got := string(l.appendLocation(nil, []byte(value), []byte("me:8080")))
			if !all([]byte(got), valueByte) {
				t.Fatalf("%q became %q", value, got)
			}
			before, err := base.Parse(value)
			if err != nil {
				continue
			}
			want := before.Host
			if strings.EqualFold(before.Host, "api.example") && before.User == nil && (before.Scheme == "https" || strings.HasPrefix(value, "//")) {
				want = "me:8080"
			}
			if after, err := base.Parse(got); err != nil || !strings.EqualFold(after.Host, want) {
				t.Fatalf("rewrite %d: %q leads to %q, %q to %v (%v)", i, value, before.Host, got, after, err)
			}
			cookie := string(l.appendCookie(nil, []byte(value)))
			pair, _, _ := strings.Cut(value, ";")
			if cookie != pair && !strings.HasPrefix(cookie, pair+";") || len(cookie) > len(value)+len("/bank; Path=") {
				t.Fatalf("rewrite %d: cookie %q became %q", i, value, cookie)
			}
		}
	})
}
